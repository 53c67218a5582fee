import type { ExecutorKind } from "../executor_kind.ts";

/**
 * The null device with a KV cache in the memory of a CUDA device, for tests of migrations: see
 * `pattern.ts`. Help does not list it.
 */
export const nullCuda: ExecutorKind = {
  device: "null-cuda",
  usesHostCores: false,
  usesProfile: false,
  sharesProcess: "never",
  hasFp8: false,
  hasRanks: false,
  memory: "device",
  /** The API server needs a tokenizer; the shape of the cache is the executor's own. */
  find: async (options) => {
    const { findModelFiles } = await import("../found_model.ts");
    return { ...findModelFiles(options), served: null };
  },
  load: async (spec) => (await import("./null_cuda_executor.ts")).loadNullCudaExecutor(spec),
};
