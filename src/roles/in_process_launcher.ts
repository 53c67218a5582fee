import { refusalOn } from "./process_launcher.ts";
import type { Address, Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { logger } from "../core/log.ts";
import type { EngineOptions, TransferOptions } from "../core/options.ts";
import { loadExecutor } from "../executor/devices.ts";
import { Instance, type InstanceMigration } from "../instance/instance.ts";
import { parseCrossover } from "../instance/llumlet/crossover.ts";
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
  /** The manager's bus, which joins instances and API servers without sockets. */
  readonly bus: Bus;
  readonly clock: Clock;
}

/**
 * Starts instances within this process, for executors that need next to no time of its thread: a
 * simulated cluster in one process. A fault in one instance ends them all.
 */
export class InProcessLauncher implements InstanceLauncher {
  readonly #pools = new PoolDirectory();

  constructor(private readonly args: InProcessLauncherOptions) {}

  refusal(_managerAddress: Address, avoidHosts: ReadonlySet<string>): string | null {
    return refusalOn(Deno.hostname(), avoidHosts);
  }

  launch({ instanceId, managerAddress, startedBy }: LaunchRequest): Promise<LaunchedInstance> {
    const { clock, bus, options } = this.args;
    const instance = new Instance({
      options,
      instanceId,
      managerAddress,
      hostName: Deno.hostname(),
      hostShare: 1,
      pid: Deno.pid,
      clock,
      bus,
      loadExecutor: (spec, onProgress) => loadExecutor(spec, onProgress, clock),
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

  /** Blocks are only counted. They move as fast as the simulated device's profile says. */
  #migration(instanceId: string): InstanceMigration | undefined {
    const { migration, clock } = this.args;
    if (!migration) return undefined;
    return {
      limits: migration,
      crossover: parseCrossover(migration.migrationCrossover) ?? 0,
      openBackend: ({ info: { migrationBytesPerMs: bytesPerMs }, pool }) => {
        if (pool?.memory !== "none") {
          throw new Error("an instance within the manager's process has no KV cache to copy");
        }
        const { limits, warning } = fitLimits({
          bufferBlocks: migration.migrationBufferBlocks,
          numLayers: migration.migrationNumLayers,
        }, pool);
        if (warning !== null) logger(instanceId).warn(warning);
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
