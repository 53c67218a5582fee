import { type Clock, sleep } from "../../core/clock.ts";
import type { Executor, ExecutorSpec } from "../executor.ts";
import { blockThread, Pacer } from "./pacer.ts";
import { SimExecutor } from "./sim_executor.ts";
import { resolveSimulation } from "./simulation.ts";

/**
 * Makes a simulated executor that runs in real time. Its steps block the thread, a worker; with a clock
 * they sleep on it instead.
 * @throws {UsageError} no such profile, or options that do not fit it
 */
export function loadSimExecutor({ options }: ExecutorSpec, clock?: Clock): Promise<Executor> {
  const pacer = clock === undefined
    ? new Pacer(() => performance.now(), blockThread)
    : new Pacer(() => clock.nowMs(), (delayMs) => sleep(clock, delayMs));
  const executor = new SimExecutor({
    simulation: resolveSimulation(options),
    speedup: options.speedup,
    wait: (delayMs) => pacer.wait(delayMs),
  });
  return Promise.resolve(executor);
}
