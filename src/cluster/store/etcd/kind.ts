import type { StoreKind } from "../store_kind.ts";

/** etcd 3.4 and later, through the JSON gateway of its client port: see {@linkcode EtcdStore}. */
export const etcd: StoreKind = {
  scheme: "etcd",
  form: "etcd://HOST[:PORT],.../CLUSTER",
  defaultPort: 2379,
  credentials: ["user", "password", "authority"],
  open: async (options) => {
    const { EtcdStore } = await import("./etcd_store.ts");
    return EtcdStore.open(options);
  },
};
