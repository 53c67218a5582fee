/** Worker of threaded_executor_test.ts: the null executor, and a few ways to fail by model name. */
import { ModelError } from "../../src/core/errors.ts";
import { loadExecutor } from "../../src/executor/devices.ts";
import type { Executor } from "../../src/executor/executor.ts";
import { ArrayKvPool } from "../../src/kv/pool/array_kv_pool.ts";
import { runEngineWorker } from "../../src/executor/thread/worker_host.ts";
import { niceness } from "./niceness.ts";

runEngineWorker(async (spec, onProgress) => {
  const { model } = spec.options;
  if (model === "missing") throw new ModelError("there is no such model");
  if (model === "throws while it loads") {
    queueMicrotask(() => {
      throw new Error("nobody catches this");
    });
    return new Promise(() => {});
  }
  onProgress({ phase: "weights", doneBytes: 1, totalBytes: 2, detail: "half" });
  const executor = await loadExecutor({ ...spec, device: "null" }, onProgress);
  if (model === "tells how nice it is") {
    const info = { ...executor.info, description: String(niceness()) };
    return changed(executor, { info });
  }
  if (model === "has a cache in memory of the host") {
    const { layout } = executor.info;
    const pool = new ArrayKvPool({ ...layout, numLayers: 1, numKvHeads: 1 }, 2);
    pool.run(1, 0, 1).fill(77);
    return changed(executor, { pool });
  }
  if (model === "has a cache that nobody reaches") return changed(executor, { pool: null });
  if (model === "rejects") {
    return changed(executor, { step: () => Promise.reject(new Error("the kernel is upset")) });
  }
  if (model === "throws") {
    const step = () => {
      queueMicrotask(() => {
        throw new Error("nobody catches this");
      });
      return new Promise<never>(() => {});
    };
    return changed(executor, { step });
  }
  if (model === "rejects close") {
    return changed(executor, { close: () => Promise.reject(new Error("the memory is upset")) });
  }
  return executor;
});

function changed(executor: Executor, changes: Partial<Executor>): Executor {
  const { info, pool } = executor;
  return {
    info,
    pool,
    step: (input) => executor.step(input),
    close: () => executor.close(),
    ...changes,
  };
}
