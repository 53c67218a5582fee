import type { StoreKind } from "../store_kind.ts";

/** A key-value bucket of NATS JetStream, server 2.9 and later: see {@linkcode NatsStore}. */
export const nats: StoreKind = {
  scheme: "nats",
  form: "nats://HOST[:PORT],.../CLUSTER",
  defaultPort: 4222,
  credentials: ["user", "password", "token", "nkeySeed", "authority"],
  open: async (options) => {
    const { NatsStore } = await import("./nats_store.ts");
    return NatsStore.open(options);
  },
};
