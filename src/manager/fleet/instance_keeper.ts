import { type Clock, sleep } from "../../core/clock.ts";
import {
  ConflictError,
  isForTheUser,
  toErrorRecord,
  UnavailableError,
  UsageError,
} from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { DrainReply } from "../../core/protocol/membership.ts";
import type { ManagerOptions, ScalingOptions } from "../../core/options.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import { DEFAULT_REJOIN_WAIT_MS, type Fleet } from "./fleet.ts";
import { HealthCheck } from "./health_check.ts";
import type { ManagedInstance } from "./managed_instance.ts";
import type { ManagerEvent } from "../manager_event.ts";
import { Replacement } from "./replacement.ts";
import { ScalingLoop } from "./scaling_loop.ts";

const DEFAULT_INSTANCE_TIMEOUT_MS = 10_000;
const DEFAULT_DRAIN_TIMEOUT_MS = 30_000;
/** A request that was dispatched to an instance before it drained has arrived there by then. */
const DISPATCH_SETTLED_MS = 1_000;
const RECOVERY_POLL_MS = 100;

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
  readonly #replacement: Replacement;
  readonly #healthCheck: HealthCheck;
  readonly #scalingLoop: ScalingLoop | null;
  /** Instances that there should be. */
  #numWanted = 0;
  /** Instances that an API server starts at the beginning; 0 once they are there. */
  #numAwaited = 0;
  /** Those that start in addition; they are wanted as soon as they serve. */
  #numAdding = 0;
  /** Instances of a manager before this one may still come. */
  #isRecovering = false;
  /** Those of them that run: one that has not come after a while hangs. */
  #survivors: readonly InstanceId[] = [];
  #cancelStrayCheck: (() => void) | null = null;
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
    this.#replacement = this.#makeReplacement();
    this.#healthCheck = this.#makeHealthCheck();
    this.#scalingLoop = this.#makeScalingLoop();
  }

  /** How many are to serve: those that are wanted, and those that are on their way out. */
  get numExpected(): number {
    const numToGo = this.#fleet.serving.filter(({ isToGo }) => isToGo).length;
    return Math.max(this.#numWanted, this.#numAwaited) + numToGo;
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
    this.#cancelStrayCheck?.();
    this.#killStrays();
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
    const {
      clock,
      rejoinWaitMs = DEFAULT_REJOIN_WAIT_MS,
      instanceTimeoutMs = DEFAULT_INSTANCE_TIMEOUT_MS,
    } = this.#config;
    this.#survivors = survivors ?? [];
    const strayMs = Math.max(instanceTimeoutMs, rejoinWaitMs);
    this.#cancelStrayCheck = clock.after(strayMs, () => this.#killStrays());
    this.#fleet.useFreshNames();
    this.#isRecovering = true;
    const deadlineMs = clock.nowMs() + rejoinWaitMs;
    while (this.#mayMoreJoin(survivors) && clock.nowMs() < deadlineMs) {
      await sleep(clock, Math.min(rejoinWaitMs, RECOVERY_POLL_MS));
    }
    this.#isRecovering = false;
    this.#checkRefused();
    if (!this.#isStopped) await this.#startMissingBesides();
  }

  /** @throws {UsageError} a manager before this one had instances that this one cannot replace */
  #checkRefused(): void {
    const { refused, settings } = this.#fleet;
    if (refused.length === 0 || !settings) return;
    this.#survivors = []; // which are to go on, and are not strays
    const [{ instanceId }] = refused;
    const pids = refused.map(({ instanceId, pid }) => `${instanceId} (process ${pid})`);
    throw new UsageError(
      `instances of a manager before this one still serve: ${
        settingsDifference(refused[0], settings, instanceId, "this manager")
      }. Start it with what they have, or end them first: ${pids.join(", ")}`,
    );
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
    const numScaled = this.#fleet.all.filter((one) => one.isStaying && !one.isDrainedByHand).length;
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
  async drain(instanceId: InstanceId): Promise<boolean> {
    return await this.#drain(this.#fleet.get(instanceId), Infinity);
  }

  /** Ends the draining of an instance that is needed after all. */
  keep(instanceId: InstanceId): void {
    const instance = this.#fleet.get(instanceId);
    if (!instance.isDraining || instance.isLeaving || instance.isStopping) return;
    if (instance.isToGo) this.#numWanted++;
    instance.isDraining = instance.isToGo = false;
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
  async remove(instanceId: InstanceId): Promise<boolean> {
    const instance = this.#fleet.get(instanceId);
    if (instance.registration === null) {
      throw new UnavailableError(`${instanceId} is still starting: try again when it serves`);
    }
    this.#noteToGo(instance);
    await this.#drain(instance, this.#config.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS);
    if (!instance.isToGo || instance.isLost || this.#isStopped) return false;
    await this.#fleet.stop(instance);
    return true;
  }

  /** The process of an instance was asked to stop; one that is to serve on is told so. */
  leave(instance: ManagedInstance): DrainReply {
    if (this.#isWindingDown) return { mayDrain: false };
    instance.isLeaving = true;
    if (instance.startedBy === "hand") this.#noteToGo(instance); // and whoever did so ends it
    this.#config.onEvent({ type: "leaving", instanceId: instance.instanceId });
    this.#startDraining(instance);
    return { mayDrain: true };
  }

  /** Instances neither come nor go; those that leave are told to stay. */
  windDown(): void {
    this.#isWindingDown = true;
    this.#replacement.stop();
    this.#scalingLoop?.stop();
    for (const instance of this.#fleet.all) {
      if (!instance.isLeaving) continue;
      instance.isLeaving = instance.isDraining = false;
      instance.peer?.notify("keep", { data: null });
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
    await Promise.all(this.#fleet.serving.map((instance) => this.#drain(instance, limitMs)));
  }

  isDrained(instance: ManagedInstance): boolean {
    const sinceDispatchMs = this.#config.clock.nowMs() - instance.lastDispatchMs;
    return instance.isEmpty && instance.migrationId === null &&
      sinceDispatchMs >= DISPATCH_SETTLED_MS;
  }

  /** Whom others have started is wanted once it serves, and so is whom a manager before this one had. */
  noteComing(instance: ManagedInstance): void {
    // Requests would move there, out of sight of who waits for the others.
    if (this.#isFinishing) this.#startDraining(instance);
    const { startedBy } = instance;
    if (startedBy === "manager" && !this.#isRecovering) return;
    const { numExpected } = this;
    this.#numWanted = Math.max(this.#numWanted, this.#numStaying);
    if (this.#numWanted >= this.#numAwaited) this.#numAwaited = 0;
    if (this.numExpected !== numExpected) this.#config.onChange();
  }

  noteEnd(instance: ManagedInstance): void {
    // Whoever started one that never served hears of it; nobody did of a former manager's.
    const failedToStart = instance.launching !== null && instance.registration === null;
    if (failedToStart || instance.isCandidate || instance.isToGo) return;
    this.#replacement.noteLoss(this.#config.clock.nowMs() - instance.servingSinceMs);
  }

  #killStrays(): void {
    for (const instanceId of this.#survivors) this.#fleet.killStray(instanceId);
    this.#survivors = [];
  }

  #mayMoreJoin(survivors: readonly InstanceId[] | null): boolean {
    const serving = new Set(this.#fleet.serving.map(({ instanceId }) => instanceId));
    if (serving.size >= this.#numWanted) return false;
    const refused = new Set(this.#fleet.refused.map(({ instanceId }) => instanceId));
    return survivors === null ||
      survivors.some((instanceId) => !serving.has(instanceId) && !refused.has(instanceId));
  }

  /** Of those that are wanted. */
  get #numStaying(): number {
    return this.#fleet.numStaying - this.#numAdding;
  }

  get #numMissing(): number {
    return Math.max(0, this.#numWanted - this.#numStaying);
  }

  /** None is to take its place. */
  #noteToGo(instance: ManagedInstance): void {
    if (instance.isToGo) return;
    if (this.#numStaying <= this.#numWanted) this.#numWanted--;
    instance.isToGo = true;
  }

  async #drain(instance: ManagedInstance, limitMs: number): Promise<boolean> {
    const { clock, options } = this.#config;
    const deadlineMs = clock.nowMs() + limitMs;
    this.#startDraining(instance);
    while (instance.isServing && instance.isDraining && !this.#isStopped) {
      if (this.isDrained(instance)) return true;
      if (clock.nowMs() >= deadlineMs) return false;
      await sleep(clock, options.pollingInterval * 1000);
    }
    return false;
  }

  #startDraining(instance: ManagedInstance): void {
    if (instance.isDraining) return;
    instance.isDraining = true;
    this.#config.onChange();
    this.#config.onEvent({ type: "draining", instanceId: instance.instanceId });
  }

  #makeReplacement(): Replacement {
    const { clock, onEvent } = this.#config;
    return new Replacement({
      clock,
      missing: () => this.#isRecovering ? 0 : this.#numMissing,
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
      remove: ({ instanceId }) => this.remove(instanceId),
      keep: ({ instanceId }) => this.keep(instanceId),
    });
  }
}
