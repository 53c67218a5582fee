import type { Address, Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import {
  ConflictError,
  type ErrorRecord,
  LlumnixError,
  MessageError,
  UnavailableError,
  UsageError,
} from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceInfo, InstanceType } from "../../core/protocol/instance_info.ts";
import type {
  InstanceRegistration,
  JoinRequest,
  ServedSettings,
} from "../../core/protocol/membership.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import { FormerInstances } from "./tombstones.ts";
import type { InstanceLauncher } from "./launcher.ts";
import { ManagedInstance } from "./managed_instance.ts";
import type { ManagerEvent } from "../manager_event.ts";

/** Time that instances get to stop before they are killed. */
const DEFAULT_STOP_TIMEOUT_MS = 5_000;
/** Time that an instance gets to join again after its connection ended. */
export const DEFAULT_REJOIN_WAIT_MS = 2_000;
/** A process that has not joined by then never will. */
const JOIN_TIMEOUT_MS = 60_000;
/** Instances that serve something else; older ones have long ended. */
const MAX_REFUSED = 1_000;
/** Instances that stop at about the same time; API servers have heard of older ones. */
const MAX_STOPPED = 16;

export interface FleetConfig {
  readonly clock: Clock;
  readonly launcher: InstanceLauncher;
  /** What its instances serve; absent: what the first of them serves. */
  readonly settings?: ServedSettings;
  /** Where instances find the manager. */
  readonly managerAddress: () => Address;
  readonly stopTimeoutMs?: number;
  readonly rejoinWaitMs?: number;
  /** Of one that comes, given those that are to stay. */
  readonly newcomerType: (types: readonly InstanceType[]) => InstanceType;
  readonly onEvent: (event: ManagerEvent) => void;
  /** Which instances serve, or may be given requests, has changed. */
  readonly onChange: () => void;
  /** It has ended, or was given up. */
  readonly onEnd: (instance: ManagedInstance) => void;
}

/** The instances of a manager: how they come, and how they go. */
export class Fleet {
  readonly #config: FleetConfig;
  readonly #instances = new Map<InstanceId, ManagedInstance>();
  readonly #instanceOfPeer = new Map<Peer, ManagedInstance>();
  /** Lost ones, which may still run somewhere: what they do is of no use to anybody. */
  readonly #former = new FormerInstances();
  readonly #refused = new Map<InstanceId, InstanceRegistration>();
  /** Name of the next instance that is started. */
  #namePrefix = "instance-";
  #nextNumber = 0;
  /**
   * Blocks of the first that served. Those that come later get as many: the free memory that they find
   * says nothing about their share.
   */
  #numBlocks: number | null = null;
  #stopped: InstanceId[] = [];
  /** Lost ones whose processes may still be ending. */
  readonly #ending = new Set<ManagedInstance>();
  #isClosed = false;

  constructor(config: FleetConfig) {
    this.#config = config;
  }

  /** All that were started or found and have not ended, in the order in which they came. */
  get all(): ManagedInstance[] {
    return [...this.#instances.values()];
  }

  /** Those that serve, in the order in which they came. */
  get serving(): ManagedInstance[] {
    return this.all.filter((instance) => instance.isServing);
  }

  /** Those that serve, or will as far as it is for the manager to say, and are to stay. */
  get numStaying(): number {
    return this.all.filter((instance) => instance.isStaying && !instance.isCandidate).length;
  }

  /** The latest of those that went because they were to. */
  get stopped(): readonly InstanceId[] {
    return this.#stopped;
  }

  /** Those that would join and serve something else. */
  get refused(): readonly InstanceRegistration[] {
    return [...this.#refused.values()];
  }

  /** What all serve; undefined while that is not known. */
  get settings(): ServedSettings | undefined {
    return this.#config.settings ?? this.serving[0]?.registration ?? undefined;
  }

  get size(): number {
    return this.#instances.size;
  }

  /** @throws {LlumnixError} there is no such instance */
  get(instanceId: InstanceId): ManagedInstance {
    const instance = this.#instances.get(instanceId);
    if (instance && !instance.isLost) return instance;
    throw new LlumnixError("not_found", `there is no instance "${instanceId}"`);
  }

  /** Instances that cannot be reached now may have the names that were given before. */
  useFreshNames(): void {
    this.#namePrefix = `instance-${Math.floor(this.#config.clock.nowMs()).toString(36)}-`;
  }

  /**
   * Starts an instance.
   * @returns its id, when it serves
   * @throws {LlumnixError} it ended before; its own error when it sent one
   * @throws {UnavailableError} the manager is stopping
   */
  async start(): Promise<InstanceId> {
    if (this.#isClosed) throw new UnavailableError("the manager is stopping");
    const { clock, launcher, managerAddress, onEvent } = this.#config;
    const instanceId = this.#freshName();
    const instance = this.#expect(instanceId);
    try {
      instance.launching = launcher.launch({
        instanceId,
        managerAddress: managerAddress(),
        numBlocks: this.#numBlocks,
        startedBy: "manager",
      });
      instance.launched = await instance.launching;
    } catch (error) {
      this.#instances.delete(instanceId);
      throw error;
    }
    const { pid, exited } = instance.launched;
    onEvent({ type: "launched", instanceId, pid });
    exited.then(() => this.lose(instance));
    const cancelWait = clock.after(JOIN_TIMEOUT_MS, () => {
      if (!instance.hasJoined) this.lose(instance, "did not connect to the manager");
    });
    try {
      await instance.ready;
    } finally {
      cancelWait();
    }
    return instanceId;
  }

  /**
   * An instance connects, before it loads or while it serves.
   * @throws {LlumnixError} `not_found`: it was given up before; it is to end
   * @throws {UsageError} it serves something else than the others, or another has its name
   * @throws {ConflictError} another that had its name is still ending
   * @throws {UnavailableError} nobody expects it
   */
  join(request: JoinRequest, peer: Peer): ManagedInstance {
    const { instanceId, isRunning = false, registration, startedBy = "manager" } = request;
    if (registration) this.checkSettings(registration);
    const holder = this.#instances.get(instanceId);
    const isHolder = holder?.isSameAs(request) === true;
    const isGivenUp = isHolder
      ? holder.isLost
      : this.#former.includes(request) || (holder && isRunning);
    if (isGivenUp) {
      throw new LlumnixError("not_found", `the manager has given "${instanceId}" up`);
    }
    if (holder && !isHolder && startedBy !== "manager") throw nameTakenError(holder);
    const isExpected = holder
      ? isHolder && (isRunning || holder.peer === null || holder.peer === peer)
      : isRunning || startedBy !== "manager";
    if (!isExpected || this.#isClosed) {
      throw new UnavailableError(`the manager does not expect an instance "${instanceId}"`);
    }
    let instance = holder;
    if (!instance) {
      instance = this.#expect(instanceId);
      instance.isCandidate = !isRunning;
    }
    const former = instance.peer;
    instance.peer = peer;
    instance.hasJoined = true;
    instance.incarnation = request.incarnation;
    instance.startedBy = startedBy;
    this.#instanceOfPeer.set(peer, instance);
    if (former !== peer) former?.close(); // it may say it twice
    return instance;
  }

  /** It serves, or serves again; {@linkcode checkSettings} has let it pass. */
  register(registration: InstanceRegistration, peer: Peer): void {
    const { clock, launcher, onChange, onEvent } = this.#config;
    const instance = this.#named(registration.instanceId, peer);
    this.#refused.delete(registration.instanceId);
    instance.cancelRejoinWait?.();
    instance.register(registration, clock.nowMs());
    if (!instance.launched) instance.adopted ??= launcher.adopt?.(registration, peer.pid) ?? null;
    this.#numBlocks ??= registration.totalBlocks;
    onEvent({ type: "registered", registration });
    onChange();
  }

  /**
   * An instance has reported.
   * @returns what is known of it now, and of requests what is news
   * @throws {MessageError} no instance has joined over this connection, or it reports for another
   */
  takeInfo(info: InstanceInfo, peer: Peer): InstanceInfo {
    const instance = this.#named(info.instanceId, peer);
    const { info: newest } = instance;
    instance.silentTicks = 0;
    const isOvertaken = newest !== null && info.timestampMs < newest.timestampMs;
    const { finishedRequestIds, receivedRequestIds } = info;
    return instance.info = isOvertaken
      ? { ...newest, finishedRequestIds, receivedRequestIds }
      : info;
  }

  /** Its last words. Its end may take a moment, when a step hangs. */
  noteFailure(error: ErrorRecord, peer: Peer): void {
    this.of(peer).failure = error;
    this.#config.onChange();
  }

  /** A connection has ended. One that serves gets a moment to come back; its requests run on. */
  closed(peer: Peer): void {
    const instance = this.#instanceOfPeer.get(peer);
    this.#instanceOfPeer.delete(peer);
    if (!instance || instance.peer !== peer) return;
    instance.peer = null;
    instance.noteDisconnected();
    const { isServing, isLeaving, failure } = instance;
    const mayComeBack = isServing && !isLeaving && failure === null && !this.#isClosed;
    if (!mayComeBack || instance.adopted?.hasEnded()) {
      this.lose(instance);
      return;
    }
    const { clock, rejoinWaitMs = DEFAULT_REJOIN_WAIT_MS, onChange } = this.#config;
    onChange();
    instance.cancelRejoinWait = clock.after(rejoinWaitMs, () => {
      this.lose(instance, "lost its connection");
    });
  }

  /** The instance at the other end. */
  of(peer: Peer): ManagedInstance {
    const instance = this.#instanceOfPeer.get(peer);
    if (!instance) throw new MessageError(`${peer.remote} has not joined`);
    return instance;
  }

  /** @throws {MessageError} the peer is not that instance */
  #named(instanceId: InstanceId, peer: Peer): ManagedInstance {
    const instance = this.of(peer);
    if (instance.instanceId === instanceId) return instance;
    throw new MessageError(
      `field instanceId: expected ${instance.instanceId}, which has joined, received ${instanceId}`,
    );
  }

  /**
   * Its process ended, its connection closed for good, or it hangs; whichever is noticed first.
   * @param cause why it is given up although it runs
   */
  async lose(instance: ManagedInstance, cause: string | null = null): Promise<void> {
    if (instance.isLost) return;
    const { clock, onChange, onEnd, onEvent } = this.#config;
    const { instanceId } = instance;
    instance.isLost = true;
    instance.cancelRejoinWait?.();
    this.#former.add(instanceId, instance.incarnation);
    if (instance.isLeaving) this.#noteStopped(instanceId);
    onChange();
    const reason = await instance.describeEnd(clock, cause);
    instance.failStart(reason);
    this.#instances.delete(instanceId);
    if (this.#isClosed) return;
    this.#letEnd(instance);
    if (instance.isStopping || instance.isLeaving) onEvent({ type: "stopped", instanceId });
    else if (instance.isCandidate) onEvent({ type: "start_failed", reason, retryMs: null });
    else onEvent({ type: "lost", instanceId, reason });
    onEnd(instance);
  }

  /** Kills an instance of a manager before this one, unless it has joined this one. */
  async killStray(instanceId: InstanceId): Promise<void> {
    if (this.#instances.has(instanceId) || this.#former.hasName(instanceId)) return;
    this.#former.add(instanceId);
    const { launcher, managerAddress, onEvent } = this.#config;
    const isKilled = await launcher.killStray?.(instanceId, managerAddress()) === true;
    if (isKilled) onEvent({ type: "stray_killed", instanceId });
  }

  /** Asks an instance to stop, waits, and kills it if it does not. */
  async stop(instance: ManagedInstance): Promise<void> {
    instance.askToStop();
    this.#noteStopped(instance.instanceId);
    this.#config.onChange();
    await this.#killUnlessEnded([instance]);
    await this.lose(instance);
  }

  /** Asks all to stop, waits, and kills those that do not. Nothing starts or joins any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const running = this.all;
    await Promise.allSettled(running.map(({ launching }) => launching));
    for (const instance of running) {
      instance.cancelRejoinWait?.();
      instance.askToStop();
    }
    await this.#killUnlessEnded([...running, ...this.#ending]);
  }

  /** Ends the instances' processes at once; {@linkcode close} then has nothing to wait for. */
  kill(): void {
    for (const instance of this.#instances.values()) instance.killProcess();
  }

  /** Also others may have given names. */
  #freshName(): InstanceId {
    for (;;) {
      const name = `${this.#namePrefix}${this.#nextNumber++}`;
      if (!this.#instances.has(name) && !this.#former.hasName(name)) return name;
    }
  }

  #expect(instanceId: InstanceId): ManagedInstance {
    this.#stopped = this.#stopped.filter((one) => one !== instanceId);
    const types = this.all.filter((one) => one.isStaying).map(({ type }) => type);
    const instance = new ManagedInstance(instanceId, this.#config.newcomerType(types));
    this.#instances.set(instanceId, instance);
    return instance;
  }

  /**
   * Those that others start, or that a manager before this one had, may serve anything.
   * @throws {UsageError} not the same as the others; told once of each
   */
  checkSettings(registration: InstanceRegistration): void {
    const { settings, onEvent } = this.#config;
    const { instanceId } = registration;
    const other = this.serving.find((one) => one.instanceId !== instanceId);
    const expected = settings ?? other?.registration;
    if (!expected) return;
    const there = settings ? "this manager" : other!.instanceId;
    const difference = settingsDifference(registration, expected, instanceId, there);
    if (difference === null) return;
    const reason = `${difference}: all instances of a manager have the same`;
    if (!this.#refused.has(instanceId)) onEvent({ type: "refused", instanceId, reason });
    this.#refused.set(instanceId, registration);
    if (this.#refused.size > MAX_REFUSED) {
      this.#refused.delete(this.#refused.keys().next().value!);
    }
    throw new UsageError(reason);
  }

  #noteStopped(instanceId: InstanceId): void {
    this.#stopped = [...this.#stopped, instanceId].slice(-MAX_STOPPED);
  }

  /** Nobody waits for it, and it has time to end by itself. */
  async #letEnd(instance: ManagedInstance): Promise<void> {
    this.#ending.add(instance);
    await this.#killUnlessEnded([instance]);
    this.#ending.delete(instance);
  }

  async #killUnlessEnded(instances: readonly ManagedInstance[]): Promise<void> {
    const { clock, stopTimeoutMs = DEFAULT_STOP_TIMEOUT_MS } = this.#config;
    const cancel = clock.after(stopTimeoutMs, () => {
      for (const instance of instances) instance.kill();
    });
    await Promise.all(instances.map((one) => one.untilEnded(clock)));
    cancel();
  }
}

function nameTakenError({ instanceId, isLost, registration }: ManagedInstance): LlumnixError {
  if (isLost) {
    return new ConflictError(
      `the instance "${instanceId}" before is still ending; start it again in a few seconds`,
    );
  }
  const process = registration ? ` (process ${registration.pid})` : "";
  return new UsageError(
    `--instance-id ${instanceId}: an instance of the manager${process} has that name; choose ` +
      "another, or end that one first",
  );
}
