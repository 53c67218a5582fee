import { sleep } from "../../core/clock.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { EngineOptions } from "../../core/options.ts";
import { resolveSimulation, type Simulation } from "../../executor/sim/simulation.ts";
import { Instance, type InstanceMigration } from "../../instance/instance.ts";
import type {
  ExitStatus,
  InstanceLauncher,
  LaunchedInstance,
  LaunchRequest,
} from "../../manager/fleet/launcher.ts";
import { parseCrossover } from "../../instance/llumlet/crossover.ts";
import type { KvLayout } from "../../kv/layout.ts";
import { unreadOptions } from "../unread_options.ts";
import { ClockedExecutor, type PreemptionObserver } from "./clocked_executor.ts";
import type { DirectNetwork } from "./direct_bus.ts";
import type { ClusterConfig } from "./experiment_config.ts";
import type { ExperimentLoop } from "./experiment_loop.ts";
import { LinkBackend } from "./link_backend.ts";

export interface ExperimentInstancesArgs {
  readonly config: ClusterConfig;
  readonly loop: ExperimentLoop;
  readonly network: DirectNetwork;
  readonly observer: PreemptionObserver;
  /** Time from an instance's launch until it serves. */
  readonly startMs: () => number;
}

/** Starts production instances on simulated devices, all in this process. */
export class ExperimentInstances implements InstanceLauncher {
  readonly simulation: Simulation;
  readonly #args: ExperimentInstancesArgs;
  readonly #options: EngineOptions;
  /** Instances that were launched and have not ended. */
  readonly #alive = new Map<InstanceId, Instance>();
  #numSteps = 0;

  /** @throws {UsageError} the device or model is unknown, or the options do not fit it */
  constructor(args: ExperimentInstancesArgs) {
    this.#args = args;
    this.simulation = resolveSimulation(args.config.engine);
    this.#options = engineOptions(args.config);
  }

  get numAlive(): number {
    return this.#alive.size;
  }

  /** Engine steps of all instances so far. */
  get numSteps(): number {
    return this.#numSteps;
  }

  /** The current state of each serving instance. */
  infos(): InstanceInfo[] {
    return [...this.#alive.values()].flatMap(({ engine }) => engine?.info() ?? []);
  }

  launch(request: LaunchRequest): Promise<LaunchedInstance> {
    const { instanceId, managerAddress } = request;
    const { loop, network } = this.#args;
    const node = network.node();
    const instance = new Instance({
      options: this.#options,
      instanceId,
      managerAddress,
      hostShare: 1,
      pid: 0,
      clock: loop.settlingClock(() => node.callsInFlight > 0),
      bus: node,
      loadExecutor: () => this.#load(() => node.callsInFlight > 0),
      rejoinTimeoutMs: 0,
      migration: this.#migration(),
    });
    this.#alive.set(instanceId, instance);
    return Promise.resolve({
      pid: 0,
      exited: this.#run(instance, instanceId),
      stop: (signal) => instance.stop(`got ${signal}`),
    });
  }

  async #load(isWaiting: () => boolean): Promise<ClockedExecutor> {
    const { loop, observer, startMs } = this.#args;
    const delayMs = startMs();
    if (delayMs > 0) await sleep(loop.settlingClock(), delayMs);
    return new ClockedExecutor({
      simulation: this.simulation,
      clock: loop.settlingClock(isWaiting),
      observer,
      onStep: () => this.#numSteps++,
    });
  }

  /** As in the service, no request moves without `--enable-migration`, not even from a draining instance. */
  #migration(): InstanceMigration | undefined {
    const { migration, transfer } = this.#args.config;
    if (!migration.enableMigration) return undefined;
    const crossover = parseCrossover(transfer.migrationCrossover) ?? 0;
    return {
      limits: transfer,
      crossover,
      openBackend: ({ info }) => this.#openBackend(info.layout),
    };
  }

  #openBackend(layout: KvLayout): LinkBackend {
    const { config: { transfer }, loop } = this.#args;
    return new LinkBackend({
      layout,
      limits: {
        bufferBlocks: transfer.migrationBufferBlocks,
        numLayers: transfer.migrationNumLayers,
      },
      clock: loop.settlingClock(),
      bytesPerMs: this.simulation.profile.migration.gbps * 1e6,
    });
  }

  async #run(instance: Instance, instanceId: InstanceId): Promise<ExitStatus> {
    const { exitCode, error } = await instance.run();
    await instance.close();
    this.#alive.delete(instanceId);
    if (error !== undefined) throw error;
    return { code: exitCode, signal: null };
  }
}

function engineOptions({ engine }: ClusterConfig): EngineOptions {
  return { ...engine, ...unreadOptions, device: "sim", stepTimeout: 0 };
}
