import { type Clock, sleep } from "../../core/clock.ts";
import { ConflictError, isForTheUser, toErrorRecord, UnavailableError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { DrainReply } from "../../core/protocol/membership.ts";
import type { ManagerOptions, ScalingOptions } from "../../core/options.ts";
import { DEFAULT_REJOIN_WAIT_MS, type Fleet } from "./fleet.ts";
import { HealthCheck } from "./health_check.ts";
import type { DrainCause } from "./drain.ts";
import type { InstanceLauncher } from "./launcher.ts";
import type { ManagedInstance } from "./managed_instance.ts";
import type { ManagerEvent } from "../manager_event.ts";
import { Recovery } from "./recovery.ts";
import { Replacement } from "./replacement.ts";
import { ScalingLoop } from "./scaling_loop.ts";

export const DEFAULT_INSTANCE_TIMEOUT_MS = 10_000;
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
  /** Absent: the number of instances changes only by calls. */
  readonly scaling?: ScalingOptions;
  readonly instanceTimeoutMs?: number;
  readonly drainTimeoutMs?: number;
  readonly rejoinWaitMs?: number;
  readonly launcher: InstanceLauncher;
  readonly onEvent: (event: ManagerEvent) => void;
  /** Which instances take requests has changed, or how many are expected. */
  readonly onChange: () => void;
  /**
   * What must outlive this manager has changed: the number of instances, or a drain.
   * @param decided the instance of which an operator has decided; absent: none
   */
  readonly onOrder: (decided?: InstanceId) => void;
}

/**
 * Keeps as many instances as there should be: replaces instances that are lost, hang or stop by
 * themselves, and adds and removes instances on request or by load.
 */
export class InstanceKeeper {
  readonly #config: InstanceKeeperConfig;
  readonly #fleet: Fleet;
  readonly #recovery: Recovery;
  readonly #replacement: Replacement;
  readonly #healthCheck: HealthCheck;
  readonly #scalingLoop: ScalingLoop | null;
  /** Instances that the options ask for. */
  #numInitial = 0;
  /** Instances that the hosts bring. */
  #numOfHosts = 0;
  /** Instances that were added, less those removed: by earlier managers, and by this one. */
  #adoptedChange = 0;
  #ownChange = 0;
  /** Instances that were there already, or that others have started: at least so many are wanted. */
  #numFound = 0;
  /** The number that an earlier manager has told counts, and not what its instances keep. */
  #isTold = false;
  /** Instances that an API server starts at the beginning; 0 once all of them serve. */
  #numAwaited = 0;
  /** Additional instances that start; they count as wanted once they serve. */
  #numAdding = 0;
  /** The service ends: instances neither come nor go. */
  #isWindingDown = false;
  /** The service ends once no instance has requests. */
  #isFinishing = false;
  #isStopped = false;
  /** Why an instance did not start in the place of another; null: none failed lately. */
  #failedStart: string | null = null;
  /** The last replacement that was asked for; never rejects. */
  #replacing: Promise<void> = Promise.resolve();

  constructor(config: InstanceKeeperConfig) {
    this.#config = config;
    this.#fleet = config.fleet;
    const { initialInstances, disableInitInstanceByManager } = config.options;
    if (disableInitInstanceByManager) this.#numAwaited = initialInstances;
    else this.#numInitial = initialInstances;
    this.#recovery = this.#makeRecovery();
    this.#replacement = this.#makeReplacement();
    this.#healthCheck = this.#makeHealthCheck();
    this.#scalingLoop = this.#makeScalingLoop();
  }

  /** How many instances API servers should see: the wanted ones, and those that are being removed. */
  get numExpected(): number {
    const numRemoved = this.#fleet.serving.filter((one) => one.isBeingRemoved).length;
    // Without room for more, the service is complete with those that there are.
    return Math.min(this.numWanted, this.#fleet.numStaying + this.#room) + numRemoved;
  }

  /** How many instances there should be. */
  get numWanted(): number {
    return Math.max(this.#numWanted, this.#numAwaited);
  }

  /** Instances that were added, less those that were removed, also by earlier managers. */
  get instanceChange(): number {
    return this.#adoptedChange + this.#ownChange;
  }

  /** See {@linkcode instanceChange}: how many an earlier manager has added, less those removed. */
  adoptChange(change: number): void {
    if (this.#isTold) return;
    this.#adoptedChange = change;
    this.#config.onChange();
  }

  /** The hosts bring this many instances to the service, all hosts together. */
  noteHosts(numInstances: number): void {
    const change = numInstances - this.#numOfHosts;
    this.#numOfHosts = numInstances;
    // Instances that were found on lost hosts are no more.
    if (change < 0) {
      this.#numFound = Math.max(0, Math.min(this.#numFound + change, this.#numStaying));
    }
  }

  /** Room for instances has come or gone: see {@linkcode Replacement.noteRoom}. */
  noteRoom(isNew: boolean): void {
    if (isNew) this.#fleet.adoptAll();
    if (this.#numMissing > 0 && !this.#recovery.isWaiting) this.#replacement.noteRoom(isNew);
    this.#config.onChange();
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
   * Starts the missing instances, and waits until they serve. Where hosts run them, it waits for nothing:
   * they start as hosts join.
   * @throws {LlumnixError} an instance ended before it served; its own error if it sent one
   */
  async startMissing(): Promise<void> {
    if (this.#hasHosts) return this.noteRoom(true);
    await Promise.all(Array.from({ length: this.#numMissing }, () => this.#fleet.start()));
  }

  /**
   * Gives the instances of a previous manager time to join, then starts the missing instances. A
   * survivor is killed if it has not joined by the time after which a silent instance is given up.
   * @param survivors ids of all instances that may join; null: not known
   * @param numWanted instances that there should be; default: as many as the options say
   * @throws {UsageError} survivors serve something else than this manager; they are not killed
   * @throws {UsageError | ModelError} no instance serves, and a start failed with an error that only
   *   the user can fix
   */
  async recover(survivors: readonly InstanceId[] | null, numWanted?: number): Promise<void> {
    if (numWanted !== undefined) {
      this.#isTold = true;
      this.#adoptedChange = numWanted - this.#numInitial - this.#numOfHosts;
    }
    await this.#recovery.awaitJoins(survivors);
    if (!this.#isStopped) await this.#completeRecovery();
  }

  /** A failed start does not end the recovery if instances serve, or if another start may succeed. */
  async #completeRecovery(): Promise<void> {
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
   * @param replaces see {@linkcode LaunchRequest}
   * @returns its id, once it serves
   * @throws {LlumnixError} it ended before it served
   * @throws {UnavailableError} the manager is stopping
   * @throws {ConflictError} there are as many instances as scaling allows
   */
  async add(replaces?: InstanceId): Promise<InstanceId> {
    const { scaling } = this.#config;
    const numScaled =
      this.#fleet.all.filter((one) => one.isStaying && one.drain?.by !== "operator").length;
    if (scaling?.enableScaling && numScaled >= scaling.maxInstances) {
      throw new ConflictError(
        `there are already ${numScaled} instances, and --max-instances is ${scaling.maxInstances}`,
      );
    }
    this.#numAdding++;
    try {
      const instanceId = await this.#fleet.start(replaces);
      this.#want(1);
      return instanceId;
    } finally {
      this.#numAdding--;
      this.#config.onChange();
    }
  }

  /**
   * Lets an instance take no more requests, and moves its requests to others. Requests that cannot move
   * finish where they are.
   * @returns true once the instance has no request; false if it is gone, or {@linkcode keep} was called
   * @throws {LlumnixError} there is no such instance
   */
  async drain(instanceId: InstanceId, by: DrainCause): Promise<boolean> {
    const instance = this.#fleet.get(instanceId);
    this.#beginDrain(instance, by);
    return await this.#untilDrained(instance, Infinity);
  }

  /** Ends the drain of an instance, and its removal, unless its own process began it. */
  keep(instanceId: InstanceId): void {
    const instance = this.#fleet.get(instanceId);
    const ended = instance.endDrain();
    if (ended === null) return;
    if (ended.isRemoval) this.#want(1, instance.startedBy === "manager");
    this.#config.onOrder(instanceId);
    this.#noteKept(instance);
  }

  /**
   * Ends a drain that {@linkcode resumeDrain} has begun, and that an earlier manager had ended. The number of
   * instances that there should be is with this one.
   */
  revokeDrain(instance: ManagedInstance): void {
    if (instance.endDrain() !== null) this.#noteKept(instance);
  }

  #noteKept({ instanceId }: ManagedInstance): void {
    this.#config.onChange();
    this.#config.onEvent({ type: "kept", instanceId });
  }

  /**
   * Drains an instance and stops it. Requests that are still there after the time limit are resumed on
   * other instances from the tokens that they have.
   * @returns false if the instance was kept, or ended by itself meanwhile
   * @throws {LlumnixError} there is no such instance
   * @throws {UnavailableError} it does not serve yet
   */
  async remove(instanceId: InstanceId, by: DrainCause): Promise<boolean> {
    const instance = this.#fleet.get(instanceId);
    if (instance.registration === null) {
      throw new UnavailableError(`${instanceId} is still starting; try again when it serves`);
    }
    this.#beginRemoval(instance, by);
    return await this.#finishRemoval(instance);
  }

  /**
   * Goes on with a drain, or a removal, that an earlier manager has begun. The number of instances that
   * there should be is without one that is removed.
   */
  async resumeDrain(instanceId: InstanceId, by: DrainCause, isRemoval: boolean): Promise<void> {
    const instance = this.#fleet.get(instanceId);
    this.#startDrain(instance, by, isRemoval);
    if (isRemoval) await this.#finishRemoval(instance);
  }

  async #finishRemoval(instance: ManagedInstance): Promise<boolean> {
    await this.#untilDrained(instance, this.#config.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS);
    if (!instance.isBeingRemoved || instance.isLost || this.#isStopped) return false;
    await this.#fleet.stop(instance);
    return true;
  }

  /**
   * Drains and stops an instance, and starts another in its place. One at a time, whoever asks, and only
   * once no instance is missing or starting: hosts that are upgraded at the same time do not drain all at
   * once. The only instance that takes requests stops after the other serves; of several, the instance
   * stops first, because a host may not have room for one more.
   * @param isWanted whether the replacement is still wanted when its turn has come
   * @throws {LlumnixError} the other instance did not start, or this one was kept: it serves on
   */
  replace(instanceId: InstanceId, isWanted: () => boolean = () => true): Promise<void> {
    const replaced = this.#replacing.then(() => this.#replace(instanceId, isWanted));
    this.#replacing = replaced.catch(() => {});
    return replaced;
  }

  async #replace(instanceId: InstanceId, isWanted: () => boolean): Promise<void> {
    this.#failedStart = null;
    await this.#untilComplete();
    if (!isWanted()) return;
    if (!this.#fleet.all.some((one) => one.instanceId === instanceId && one.isStaying)) return; // lost
    const { launcher, drainTimeoutMs = DEFAULT_DRAIN_TIMEOUT_MS } = this.#config;
    const instance = this.#fleet.get(instanceId);
    const isOnly = this.#fleet.serving.every((one) => one === instance || !one.isAvailable);
    launcher.preferHostOf?.(instanceId);
    try {
      if (isOnly) {
        await this.add(instanceId);
        this.#beginRemoval(instance, "upgrade");
      } else this.#beginDrain(instance, "upgrade");
      await this.#untilDrained(instance, drainTimeoutMs);
      if (this.#isStopped) throw new UnavailableError("the manager is stopping");
      if (!instance.isLost) {
        if (!instance.isDraining) throw new ConflictError(`${instanceId} was kept by an operator`);
        await this.#fleet.stop(instance);
      }
      await this.#untilComplete();
    } finally {
      launcher.preferHostOf?.(null);
    }
  }

  /** @throws {UnavailableError} an instance did not start */
  async #untilComplete(): Promise<void> {
    const { clock, options } = this.#config;
    const isStarting = ({ phase, isCandidate }: ManagedInstance) =>
      phase === "starting" && !isCandidate;
    const isComplete = () =>
      !this.#recovery.isWaiting && this.#numMissing === 0 && !this.#fleet.all.some(isStarting);
    while (!isComplete()) {
      if (this.#failedStart !== null) throw new UnavailableError(this.#failedStart);
      if (this.#isStopped) throw new UnavailableError("the manager is stopping");
      await sleep(clock, options.pollingInterval * 1000);
    }
  }

  /** The process of an instance was asked to stop, by a signal, and would like to drain first. */
  letDrainItself(instance: ManagedInstance): DrainReply {
    if (this.#isWindingDown) return { mayDrain: false };
    this.#config.onEvent({ type: "stop_requested", instanceId: instance.instanceId });
    // The user who started an instance by hand also ends it: no other takes its place.
    if (instance.startedBy === "hand") this.#beginRemoval(instance, "itself");
    else this.#beginDrain(instance, "itself");
    return { mayDrain: true };
  }

  /** The service is about to end: instances neither come nor go, and those that wanted to go stay. */
  windDown(): void {
    this.#isWindingDown = true;
    this.#replacement.stop();
    this.#scalingLoop?.stop();
    for (const instance of this.#fleet.all) {
      if (instance.overruleOwnDrain()?.isRemoval) {
        this.#want(1, instance.startedBy === "manager");
      }
    }
    this.#config.onChange();
  }

  /**
   * Takes no more requests, and lets those that run finish, for at most `limitMs`. Instances run until
   * the manager stops.
   */
  async finishRequests(limitMs: number): Promise<void> {
    this.windDown();
    this.#isFinishing = true;
    await Promise.all(this.#fleet.serving.map((instance) => {
      this.#beginDrain(instance, "shutdown");
      return this.#untilDrained(instance, limitMs);
    }));
  }

  /** Instances started by others, or by a previous manager, count as wanted once they serve. */
  noteServing(instance: ManagedInstance): void {
    // Otherwise requests would move there, and `finishRequests` does not wait for this instance.
    if (this.#isFinishing) this.#beginDrain(instance, "shutdown");
    if (instance.startedBy === "manager" && !this.#recovery.isWaiting) return;
    const { numExpected } = this;
    this.#numFound = Math.max(this.#numFound, this.#numStaying);
    if (this.#numWanted >= this.#numAwaited) this.#numAwaited = 0;
    if (this.numExpected !== numExpected) this.#config.onChange();
  }

  noteEnd(instance: ManagedInstance): void {
    if (instance.isDraining) this.#config.onOrder();
    // `Fleet.start` reports a failed start to its caller. An instance of a previous manager has none.
    const failedToStart = instance.process.wasLaunched && instance.registration === null;
    if (failedToStart || instance.isCandidate || instance.isBeingRemoved) return;
    this.#replacement.noteLoss(this.#config.clock.nowMs() - instance.servingSinceMs);
  }

  get #numWanted(): number {
    return Math.max(0, this.#numFound, this.#numOrdered);
  }

  get #numOrdered(): number {
    return this.#numInitial + this.#numOfHosts + this.instanceChange;
  }

  /** The instances that count as wanted, and serve or start. */
  get #numStaying(): number {
    return this.#fleet.numStaying - this.#numAdding;
  }

  /** The instances that are wanted and can be started. Others wait until a host has room. */
  get #numMissing(): number {
    const numPresent = this.#numStaying + (this.#config.launcher.numUnjoined ?? 0);
    return Math.max(0, Math.min(this.#numWanted - numPresent, this.#room));
  }

  get #room(): number {
    return this.#config.launcher.room ?? Infinity;
  }

  /** Whether hosts with agents run the instances. Such a service waits for hosts, and does not give up. */
  get #hasHosts(): boolean {
    return this.#config.launcher.room !== undefined;
  }

  /** @param isOrdered false: the instance that comes or goes was started by others, and counts while it is there */
  #want(change: number, isOrdered = true): void {
    if (isOrdered) this.#ownChange += change;
    if (this.#numFound > 0) this.#numFound += change;
    this.#config.onOrder();
  }

  #beginRemoval(instance: ManagedInstance, by: DrainCause): void {
    if (!instance.isBeingRemoved && this.#numStaying <= this.#numWanted) {
      this.#want(-1, instance.startedBy === "manager");
    }
    this.#beginDrain(instance, by, true);
  }

  #beginDrain(instance: ManagedInstance, by: DrainCause, isRemoval = false): void {
    this.#startDrain(instance, by, isRemoval);
    this.#config.onOrder(instance.instanceId);
  }

  #startDrain(instance: ManagedInstance, by: DrainCause, isRemoval: boolean): void {
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
      // What is wanted is not known before all hosts have joined.
      numWanted: () => this.#hasHosts ? Infinity : this.#numWanted,
    });
  }

  #makeReplacement(): Replacement {
    const { clock, onEvent } = this.#config;
    return new Replacement({
      clock,
      missing: () => this.#recovery.isWaiting ? 0 : this.#numMissing,
      isAnyLeft: () => this.#hasHosts || this.#fleet.size > 0 || this.#fleet.refusal !== null,
      start: () => this.#fleet.start(),
      onFailure: (reason, retryMs) => {
        this.#failedStart = reason;
        onEvent({ type: "start_failed", reason, retryMs });
      },
      onGiveUp: (reason) => {
        this.#failedStart = reason;
        onEvent({ type: "given_up", reason });
      },
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
      room: () => this.#room,
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
