import type { ExecutorKind } from "../executor_kind.ts";

/** The host's processors. */
export const cpu: ExecutorKind = {
  device: "cpu",
  usesHostCores: true,
  usesProfile: false,
  sharesProcess: "never",
  hasFp8: false,
  hasRanks: false,
  memory: "host",
  isPresent: () => true,
  find: async (options) => (await import("../found_model.ts")).findModelFiles(options),
  load: async (spec, onProgress) => (await import("./load.ts")).loadCpuExecutor(spec, onProgress),
};
