import type { Bus } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { logger } from "../core/log.ts";
import type { EngineOptions, TransferOptions } from "../core/options.ts";
import { createExecutor } from "../executor/create_executor.ts";
import type { Executor, ExecutorSpec, OnProgress } from "../executor/executor.ts";
import { Pacer } from "../executor/sim/pacer.ts";
import { SimExecutor } from "../executor/sim/sim_executor.ts";
import { resolveSimulation } from "../executor/sim/simulation.ts";
import { Instance, type InstanceMigration } from "../instance/instance.ts";
import { AccountedKvPool } from "../kv/pool/accounted_kv_pool.ts";
import { fitLimits } from "../kv/transfer/limits.ts";
import { InProcessBackend } from "../kv/transfer/in_process/in_process_backend.ts";
import { PoolDirectory } from "../kv/transfer/in_process/pool_directory.ts";
import type {
  ExitStatus,
  InstanceLauncher,
  LaunchedInstance,
  LaunchRequest,
} from "../manager/fleet/launcher.ts";

export interface InProcessLauncherOptions {
  readonly options: EngineOptions;
  /** Absent: requests stay where they are. */
  readonly migration?: TransferOptions;
  /** The manager's: it joins instances and API servers without sockets. */
  readonly bus: Bus;
  readonly clock: Clock;
}

/**
 * Starts instances within this process, for executors that need next to no time of its thread: a
 * simulated cluster in the memory of one process. A fault in one of them is a fault of all.
 */
export class InProcessLauncher implements InstanceLauncher {
  readonly #pools = new PoolDirectory();

  constructor(private readonly args: InProcessLauncherOptions) {}

  launch({ instanceId, managerAddress, startedBy }: LaunchRequest): Promise<LaunchedInstance> {
    const { clock, bus, options } = this.args;
    const instance = new Instance({
      options,
      instanceId,
      managerAddress,
      hostShare: 1,
      pid: Deno.pid,
      clock,
      bus,
      loadExecutor: (spec, onProgress) => loadOnClock(spec, onProgress, clock),
      rejoinTimeoutMs: 0,
      startedBy,
      migration: this.#migration(instanceId),
    });
    const killed = Promise.withResolvers<ExitStatus>();
    const stop = (signal: "SIGTERM" | "SIGKILL") => {
      instance.stop(`got ${signal}`);
      if (signal === "SIGKILL") killed.resolve({ code: null, signal });
    };
    const exited = Promise.race([this.#run(instance, instanceId), killed.promise]);
    return Promise.resolve({ pid: Deno.pid, exited, stop });
  }

  /** Blocks are only accounted for; they move as fast as the simulated device's profile says. */
  #migration(instanceId: string): InstanceMigration | undefined {
    const { migration, options, clock } = this.args;
    if (!migration) return undefined;
    return {
      limits: migration,
      openBackend: ({ info: { layout, numBlocks } }) => {
        const pool = new AccountedKvPool(layout, numBlocks);
        const { limits, warning } = fitLimits({
          bufferBlocks: migration.migrationBufferBlocks,
          numLayers: migration.migrationNumLayers,
        }, pool);
        if (warning !== null) logger(instanceId).warn(warning);
        const bytesPerMs = migrationBytesPerMs(options);
        const directory = this.#pools;
        return new InProcessBackend({ instanceId, pool, directory, limits, clock, bytesPerMs });
      },
    };
  }

  async #run(instance: Instance, instanceId: string): Promise<ExitStatus> {
    const { exitCode, reason, error } = await instance.run();
    if (error !== undefined) logger(instanceId).error("stopping", { reason, error });
    await instance.close();
    return { code: exitCode, signal: null };
  }
}

/** Undefined for executors that have no profile: as fast as it goes. */
function migrationBytesPerMs(options: EngineOptions): number | undefined {
  if (options.device !== "sim") return undefined;
  return resolveSimulation(options).profile.migration.gbps * 1e6 * options.speedup;
}

/** A simulated executor sleeps on the clock, where a worker's would block its thread. */
async function loadOnClock(
  spec: ExecutorSpec,
  onProgress: OnProgress,
  clock: Clock,
): Promise<Executor> {
  if (spec.kind !== "sim") return await createExecutor(spec, onProgress);
  const pacer = new Pacer(() => clock.nowMs(), (delayMs) => sleep(clock, delayMs));
  return new SimExecutor({
    simulation: resolveSimulation(spec.options),
    speedup: spec.options.speedup,
    wait: (delayMs) => pacer.wait(delayMs),
  });
}
