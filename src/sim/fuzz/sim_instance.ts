import type { EngineOptions } from "../../core/options.ts";
import type { LeaderFence } from "../../core/leader_fence.ts";
import type { Random } from "../../core/random.ts";
import type { StepInput } from "../../executor/executor.ts";
import { Instance } from "../../instance/instance.ts";
import { parseCrossover } from "../../instance/llumlet/crossover.ts";
import type { ExitStatus, LaunchRequest } from "../../manager/fleet/launcher.ts";
import type { Scenario, ScenarioEngine } from "./scenario.ts";
import type { SimNode } from "../network/sim_bus.ts";
import { unreadOptions } from "../unread_options.ts";
import type { SimFabric } from "./sim_fabric.ts";
import { TimedModel } from "./timed_model.ts";

/** How long instances serve on without a manager. */
const REJOIN_TIMEOUT_MS = 20_000;
/** How long a request waits to move away from a prefill instance. */
export const PREFILL_HOLD_MS = 2_000;

export interface SimInstanceArgs {
  readonly scenario: Scenario;
  readonly request: LaunchRequest;
  readonly node: SimNode;
  readonly random: Random;
  readonly pid: number;
  /** Moves its KV blocks. */
  readonly fabric: SimFabric;
  /** Called when a step computes the fatal token of a poison request. */
  readonly onDeath: () => void;
  /** Default: not known. */
  readonly hostName?: string;
  readonly fence?: LeaderFence;
}

/** The production instance as a process of a simulated cluster. Its model has a real KV cache. */
export class SimInstance {
  readonly instanceId: string;
  readonly node: SimNode;
  readonly instance: Instance;
  /** Null until it is loaded. */
  model: TimedModel | null = null;
  /** Factor by which its steps take longer than they should. */
  slowness = 1;
  /** The manager was asked to remove it. */
  isBeingRemoved = false;
  readonly #exited = Promise.withResolvers<ExitStatus>();
  #isAlive = true;
  readonly #args: SimInstanceArgs;

  constructor(args: SimInstanceArgs) {
    const { scenario, request: { instanceId, managerAddress }, node, pid } = args;
    const { hostName, fence } = args;
    this.#args = args;
    this.instanceId = instanceId;
    this.node = node;
    this.instance = new Instance({
      options: engineOptions(scenario),
      instanceId,
      managerAddress,
      hostName,
      fence,
      hostShare: 1,
      pid,
      clock: node.clock,
      bus: node.bus,
      rejoinTimeoutMs: REJOIN_TIMEOUT_MS,
      drainTimeoutMs: scenario.timeouts.drainMs,
      loadExecutor: () => Promise.resolve(this.#load()),
      migration: {
        limits: scenario.transfer,
        crossover: parseCrossover(scenario.transfer.migrationCrossover) ?? 0,
        openBackend: () => args.fabric.open(node, this.model!.pool),
      },
    });
  }

  get name(): string {
    return this.node.name;
  }

  /** Its process runs. */
  get isAlive(): boolean {
    return this.#isAlive;
  }

  get exited(): Promise<ExitStatus> {
    return this.#exited.promise;
  }

  /** The current step, or the next one, never ends. */
  hangStep(): void {
    if (this.model) this.model.isHanging = true;
  }

  noteExit(status: ExitStatus): void {
    this.#isAlive = false;
    this.#exited.resolve(status);
  }

  #load(): TimedModel {
    const { scenario: { engine }, node, onDeath } = this.#args;
    const stepMs = (step: StepInput) => this.#stepMs(step);
    return this.model = new TimedModel(engine, node.clock, stepMs, onDeath);
  }

  #stepMs({ tokenIds }: StepInput): number {
    const { scenario: { engine }, random } = this.#args;
    return this.slowness * stepMs(engine, random.uniform(), tokenIds.length);
  }
}

/** @param luck random number from 0 to 1 */
function stepMs(engine: ScenarioEngine, luck: number, tokens: number): number {
  return engine.stepMs * (0.5 + luck + tokens / 64);
}

/** Longest step of an instance that is not slow. */
export function longestStepMs(engine: ScenarioEngine): number {
  return stepMs(engine, 1, maxBatchedTokens(engine));
}

function maxBatchedTokens({ maxModelLen, maxNumSeqs }: ScenarioEngine): number {
  return Math.max(maxModelLen, maxNumSeqs);
}

function engineOptions({ engine, seed, timeouts }: Scenario): EngineOptions {
  return {
    ...unreadOptions,
    model: null,
    dtype: "auto",
    maxModelLen: engine.maxModelLen,
    blockSize: engine.blockSize,
    seed,
    swapSpace: 0,
    gpuMemoryUtilization: 1,
    numGpuBlocksOverride: engine.numBlocks,
    maxNumBatchedTokens: maxBatchedTokens(engine),
    maxNumSeqs: engine.maxNumSeqs,
    schedulerDelayFactor: engine.schedulerDelayFactor,
    preemptionMode: engine.preemptionMode,
    device: "null",
    profilingResultFilePath: "",
    gpuType: "a10",
    prefillHoldTimeout: PREFILL_HOLD_MS / 1000,
    stepTimeout: timeouts.stepMs / 1000,
  };
}
