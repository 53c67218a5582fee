import type { Executor, ExecutorSpec, OnProgress } from "./executor.ts";

type Load = (spec: ExecutorSpec, onProgress: OnProgress) => Promise<Executor>;

/** Every kind of executor; its code is loaded when it is asked for. */
const loaders: Readonly<Record<ExecutorSpec["kind"], () => Promise<Load>>> = {
  cpu: async () => (await import("./cpu/load.ts")).loadCpuExecutor,
  sim: async () => (await import("./sim/load.ts")).loadSimExecutor,
  null: async () => (await import("./null_executor.ts")).loadNullExecutor,
};

/**
 * Loads an executor in this thread.
 * @throws {ModelError} the model cannot be read or is not supported
 * @throws {UsageError} options that it cannot meet
 */
export async function createExecutor(
  spec: ExecutorSpec,
  onProgress: OnProgress,
): Promise<Executor> {
  const load = await loaders[spec.kind]();
  return load(spec, onProgress);
}
