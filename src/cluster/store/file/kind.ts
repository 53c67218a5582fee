import type { StoreKind } from "../store_kind.ts";

/** A directory on one host: see {@linkcode FileStore}. */
export const file: StoreKind = {
  scheme: "file",
  form: "file:/DIRECTORY",
  defaultPort: null,
  credentials: [],
  open: async ({ path, timeoutMs, mustExist }) => {
    const { FileStore } = await import("./file_store.ts");
    return FileStore.open(path, timeoutMs, mustExist);
  },
};
