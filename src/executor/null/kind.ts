import type { ExecutorKind } from "../executor_kind.ts";

/** No arithmetic and no time: for measuring everything around an executor. */
export const nullDevice: ExecutorKind = {
  device: "null",
  usesHostCores: false,
  usesProfile: false,
  sharesProcess: "on request",
  hasFp8: false,
  hasRanks: false,
  memory: "none",
  /** The API server needs a tokenizer; the shape of the cache is the executor's own. */
  find: async (options) => {
    const { findModelFiles } = await import("../found_model.ts");
    return { ...findModelFiles(options), served: null };
  },
  load: async (spec) => (await import("./null_executor.ts")).loadNullExecutor(spec),
};
