import type { ExecutorKind } from "../executor_kind.ts";

/** Simulated GPUs: steps take the time that a latency profile says. */
export const sim: ExecutorKind = {
  device: "sim",
  usesHostCores: false,
  usesProfile: true,
  sharesProcess: "by default",
  hasFp8: false,
  hasRanks: false,
  memory: "none",
  find: async (options) => (await import("./find.ts")).findSimulatedModel(options),
  load: async (spec, _onProgress, clock) =>
    (await import("./load.ts")).loadSimExecutor(spec, clock),
};
