import type { Executor, ExecutorSpec } from "../executor.ts";
import { blockThread, Pacer } from "./pacer.ts";
import { SimExecutor } from "./sim_executor.ts";
import { resolveSimulation } from "./simulation.ts";

/**
 * Makes a simulated executor that runs in real time and blocks its thread, a worker, during steps.
 * @throws {UsageError} no such profile, or options that do not fit it
 */
export function loadSimExecutor({ options }: ExecutorSpec): Promise<Executor> {
  const pacer = new Pacer(() => performance.now(), blockThread);
  const executor = new SimExecutor({
    simulation: resolveSimulation(options),
    speedup: options.speedup,
    wait: (delayMs) => pacer.wait(delayMs),
  });
  return Promise.resolve(executor);
}
