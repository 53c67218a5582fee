/** Worker of threaded_executor_test.ts: the null executor, and a few ways to fail by model name. */
import { ModelError } from "../../src/core/errors.ts";
import { createExecutor } from "../../src/executor/create_executor.ts";
import type { Executor } from "../../src/executor/executor.ts";
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
  const executor = await createExecutor({ ...spec, kind: "null" }, onProgress);
  if (model === "tells how nice it is") {
    const info = { ...executor.info, description: String(niceness()) };
    return { info, step: (input) => executor.step(input), close: () => executor.close() };
  }
  if (model === "rejects") {
    const step: Executor["step"] = () => Promise.reject(new Error("the kernel is upset"));
    return { info: executor.info, step, close: () => executor.close() };
  }
  if (model === "throws") {
    const step: Executor["step"] = () => {
      queueMicrotask(() => {
        throw new Error("nobody catches this");
      });
      return new Promise(() => {});
    };
    return { info: executor.info, step, close: () => executor.close() };
  }
  if (model === "rejects close") {
    const close: Executor["close"] = () => Promise.reject(new Error("the memory is upset"));
    return { info: executor.info, step: (input) => executor.step(input), close };
  }
  return executor;
});
