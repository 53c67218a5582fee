import { type Clock, sleep } from "../../core/clock.ts";
import { ConflictError, isForTheUser, toErrorRecord, UnavailableError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { LeaveReply } from "../../core/protocol/membership.ts";
import type { ManagerOptions, ScalingOptions } from "../../core/options.ts";
import { DEFAULT_REJOIN_WAIT_MS, type Fleet } from "./fleet.ts";
import { HealthCheck } from "./health_check.ts";
import type { DrainCause } from "./drain.ts";
import type { ManagedInstance } from "./managed_instance.ts";
import type { ManagerEvent } from "../manager_event.ts";
import { Recovery } from "./recovery.ts";
import { Replacement } from "./replacement.ts";
import { ScalingLoop } from "./scaling_loop.ts";

const DEFAULT_INSTANCE_TIMEOUT_MS = 10_000;
const DEFAULT_DRAIN_TIMEOUT_MS = 30_000;

export interface InstanceKeeperConfig {
  readonly clock: Clock;
  readonly fleet: Fleet;
  readonly options: Pick<
    ManagerOptions,
    | "initialInstances"
    | "disableInitInstanceByManager"
    | "pollingInterval"
    | "loadMetric"
    | "priorityHeadroomBlocks"
  >;
  /** Absent: instances come and go only as told. */
  readonly scaling?: ScalingOptions;
  readonly instanceTimeoutMs?: number;
  readonly drainTimeoutMs?: number;
  readonly rejoinWaitMs?: number;
  readonly onEvent: (event: ManagerEvent) => void;
  /** Which instances may be given requests, or how many are expected, has changed. */
  readonly onChange: () => void;
}

/**
 * Keeps as many instances as are wanted: replaces those that are lost, hang or leave, and adds and
 * removes them as told or by load.
 */
export class InstanceKeeper {
  readonly #config: InstanceKeeperConfig;
  readonly #fleet: Fleet;
  readonly #recovery: Recovery;
  readonly #replacement: Replacement;
  readonly #healthCheck: HealthCheck;
  readonly #scalingLoop: ScalingLoop | null;
  /** Instances that there should be. */
  #numWanted = 0;
  /** Instances that an API server starts at the beginning; 0 once they are there. */
  #numAwaited = 0;
  /** Those that start in addition; they are wanted as soon as they serve. */
  #numAdding = 0;
  /** The service ends: instances neither come nor go. */
  #isWindingDown = false;
  /** It ends when no instance has requests any more. */
  #isFinishing = false;
  #isStopped = false;

  constructor(config: InstanceKeeperConfig) {
    this.#config = config;
    this.#fleet = config.fleet;
    const { initialInstances, disableInitInstanceByManager } = config.options;
    if (disableInitInstanceByManager) this.#numAwaited = initialInstances;
    else this.#numWanted = initialInstances;
    this.#recovery = this.#makeRecovery();
    this.#replacement = this.#makeReplacement();
    this.#healthCheck = this.#makeHealthCheck();
    this.#scalingLoop = this.#makeScalingLoop();
  }

  /** How many are to serve: those that are wanted, and those that are on their way out. */
  get numExpected(): number {
    const numRemoved = this.#fleet.serving.filter((one) => one.isBeingRemoved).length;
    return Math.max(this.#numWanted, this.#numAwaited) + numRemoved;
  }

  start(): void {
    this.#healthCheck.start();
    this.#scalingLoop?.start();
  }

  stop(): void {
    this.#isStopped = true;
    this.#replacement.stop();
    this.#healthCheck.stop();
    this.#scalingLoop?.stop();
    this.#recovery.stop();
  }

  /**
   * Starts what is missing, and waits until it serves.
   * @throws {LlumnixError} an instance ended before; its own error when it sent one
   */
  async startMissing(): Promise<void> {
    await Promise.all(Array.from({ length: this.#numMissing }, () => this.#fleet.start()));
  }

  /**
   * Gives the instances of a manager before this one time to join, then starts what is missing.
   * Survivors that have not joined by then, nor when one that is silent would be given up, are killed.
   * @param survivors all that may join; null: not known
   * @throws {UsageError} they serve something else: they go on
   * @throws {UsageError | ModelError} nothing serves, and a start failed for what only the user can put
   *   right
   */
  async recover(survivors: readonly InstanceId[] | null): Promise<void> {
    await this.#recovery.awaitJoins(survivors);
    if (!this.#isStopped) await this.#startMissingBesides();
  }

  /** What serves goes on serving, whatever becomes of those that start, and requests may wait. */
  async #startMissingBesides(): Promise<void> {
    try {
      await this.startMissing();
    } catch (error) {
      const isHopeless = isForTheUser(toErrorRecord(error).kind);
      if (this.#isStopped || (isHopeless && this.#fleet.serving.length === 0)) throw error;
      this.#replacement.noteLoss(0);
    }
  }

  /**
   * Starts one more instance.
   * @returns its id, when it serves
   * @throws {LlumnixError} it ended before
   * @throws {UnavailableError} the manager is stopping
   * @throws {ConflictError} there are as many as scaling allows
   */
  async add(): Promise<InstanceId> {
    const { scaling } = this.#config;
    const numScaled =
      this.#fleet.all.filter((one) => one.isStaying && one.drain?.by !== "operator").length;
    if (scaling?.enableScaling && numScaled >= scaling.maxInstances) {
      throw new ConflictError(`there are --max-instances ${scaling.maxInstances} already`);
    }
    this.#numAdding++;
    try {
      const instanceId = await this.#fleet.start();
      this.#numWanted++;
      return instanceId;
    } finally {
      this.#numAdding--;
      this.#config.onChange();
    }
  }

  /**
   * Lets an instance take no more requests, and moves those that it has to others. Those that cannot
   * leave finish where they are.
   * @returns true when it has none any more; false when it is gone, or {@linkcode keep} was called
   *   before
   * @throws {LlumnixError} there is no such instance
   */
  async drain(instanceId: InstanceId, by: DrainCause): Promise<boolean> {
    const instance = this.#fleet.get(instanceId);
    this.#beginDrain(instance, by);
    return await this.#untilDrained(instance, Infinity);
  }

  /** Ends the draining of an instance that is needed after all. */
  keep(instanceId: InstanceId): void {
    const instance = this.#fleet.get(instanceId);
    const ended = instance.endDrain();
    if (ended === null) return;
    if (ended.isRemoval) this.#numWanted++;
    this.#config.onChange();
    this.#config.onEvent({ type: "kept", instanceId });
  }

  /**
   * Drains an instance and stops it; requests that are still there after the time limit go on
   * elsewhere from the tokens that they have.
   * @returns false when it is kept, or ended by itself meanwhile
   * @throws {LlumnixError} there is no such instance
   * @throws {UnavailableError} it does not serve yet
   */
  async remove(instanceId: InstanceId, by: DrainCause): Promise<boolean> {
    const instance = this.#fleet.get(instanceId);
    if (instance.registration === null) {
      throw new UnavailableError(`${instanceId} is still starting: try again when it serves`);
    }
    this.#beginRemoval(instance, by);
    await this.#untilDrained(instance, this.#config.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS);
    if (!instance.isBeingRemoved || instance.isLost || this.#isStopped) return false;
    await this.#fleet.stop(instance);
    return true;
  }

  /** The process of an instance was asked to stop; one that is to serve on is told so. */
  letDrainItself(instance: ManagedInstance): LeaveReply {
    if (this.#isWindingDown) return { mayLeave: false };
    this.#config.onEvent({ type: "stop_requested", instanceId: instance.instanceId });
    // Whoever started an instance by hand ends it the same way, and wants no other in its place.
    if (instance.startedBy === "hand") this.#beginRemoval(instance, "itself");
    else this.#beginDrain(instance, "itself");
    return { mayLeave: true };
  }

  /** Instances neither come nor go; those that leave are told to stay. */
  windDown(): void {
    this.#isWindingDown = true;
    this.#replacement.stop();
    this.#scalingLoop?.stop();
    for (const instance of this.#fleet.all) {
      if (instance.overruleOwnDrain()?.isRemoval) this.#numWanted++;
    }
    this.#config.onChange();
  }

  /**
   * Lets what runs finish where it is, for so long; nothing new comes. Instances go on until the
   * manager stops.
   */
  async finishRequests(limitMs: number): Promise<void> {
    this.windDown();
    this.#isFinishing = true;
    await Promise.all(this.#fleet.serving.map((instance) => {
      this.#beginDrain(instance, "shutdown");
      return this.#untilDrained(instance, limitMs);
    }));
  }

  /** Whom others have started is wanted once it serves, and so is whom a manager before this one had. */
  noteComing(instance: ManagedInstance): void {
    // Requests would move there, out of sight of who waits for the others.
    if (this.#isFinishing) this.#beginDrain(instance, "shutdown");
    if (instance.startedBy === "manager" && !this.#recovery.isWaiting) return;
    const { numExpected } = this;
    this.#numWanted = Math.max(this.#numWanted, this.#numStaying);
    if (this.#numWanted >= this.#numAwaited) this.#numAwaited = 0;
    if (this.numExpected !== numExpected) this.#config.onChange();
  }

  noteEnd(instance: ManagedInstance): void {
    // Whoever started one that never served hears of it; nobody did of a former manager's.
    const failedToStart = instance.process.wasLaunched && instance.registration === null;
    if (failedToStart || instance.isCandidate || instance.isBeingRemoved) return;
    this.#replacement.noteLoss(this.#config.clock.nowMs() - instance.servingSinceMs);
  }

  /** Of those that are wanted. */
  get #numStaying(): number {
    return this.#fleet.numStaying - this.#numAdding;
  }

  get #numMissing(): number {
    return Math.max(0, this.#numWanted - this.#numStaying);
  }

  #beginRemoval(instance: ManagedInstance, by: DrainCause): void {
    if (!instance.isBeingRemoved && this.#numStaying <= this.#numWanted) this.#numWanted--;
    this.#beginDrain(instance, by, true);
  }

  #beginDrain(instance: ManagedInstance, by: DrainCause, isRemoval = false): void {
    if (!instance.beginDrain(by, isRemoval)) return;
    this.#config.onChange();
    this.#config.onEvent({ type: "draining", instanceId: instance.instanceId });
  }

  /** @returns false when the drain ended, or the time was over, before the instance was empty */
  async #untilDrained(instance: ManagedInstance, limitMs: number): Promise<boolean> {
    const { clock, options } = this.#config;
    const deadlineMs = clock.nowMs() + limitMs;
    while (instance.isServing && instance.isDraining && !this.#isStopped) {
      if (instance.isDrained(clock.nowMs())) return true;
      if (clock.nowMs() >= deadlineMs) return false;
      await sleep(clock, options.pollingInterval * 1000);
    }
    return false;
  }

  #makeRecovery(): Recovery {
    const {
      clock,
      rejoinWaitMs = DEFAULT_REJOIN_WAIT_MS,
      instanceTimeoutMs = DEFAULT_INSTANCE_TIMEOUT_MS,
    } = this.#config;
    return new Recovery({
      clock,
      fleet: this.#fleet,
      joinWaitMs: rejoinWaitMs,
      orphanMs: Math.max(instanceTimeoutMs, rejoinWaitMs),
      numWanted: () => this.#numWanted,
    });
  }

  #makeReplacement(): Replacement {
    const { clock, onEvent } = this.#config;
    return new Replacement({
      clock,
      missing: () => this.#recovery.isWaiting ? 0 : this.#numMissing,
      isAnyLeft: () => this.#fleet.size > 0,
      start: () => this.#fleet.start(),
      onFailure: (reason, retryMs) => onEvent({ type: "start_failed", reason, retryMs }),
      onGiveUp: (reason) => onEvent({ type: "given_up", reason }),
    });
  }

  #makeHealthCheck(): HealthCheck {
    const { clock, instanceTimeoutMs: timeoutMs = DEFAULT_INSTANCE_TIMEOUT_MS } = this.#config;
    return new HealthCheck({
      clock,
      timeoutMs,
      instances: () => this.#fleet.all.filter(({ isLost }) => !isLost),
      onHanging: (instance) =>
        this.#fleet.lose(instance, `did not answer for ${timeoutMs / 1000} s`),
    });
  }

  #makeScalingLoop(): ScalingLoop | null {
    const { scaling, onEvent } = this.#config;
    if (!scaling?.enableScaling) return null;
    return new ScalingLoop({
      ...this.#config,
      scaling,
      instances: () => this.#fleet.all,
      isSettled: () => this.#numMissing === 0,
      onScale: (change) => onEvent({ type: "scaling", change }),
      add: () => {
        this.add().catch((error) => {
          onEvent({ type: "start_failed", reason: toErrorRecord(error).message, retryMs: null });
        });
      },
      remove: ({ instanceId }) => this.remove(instanceId, "scaling"),
      keep: ({ instanceId }) => this.keep(instanceId),
    });
  }
}
