import type { Address, Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import {
  ConflictError,
  type ErrorRecord,
  LlumnixError,
  MessageError,
  UnavailableError,
} from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceInfo, InstanceType } from "../../core/protocol/instance_info.ts";
import type {
  InstanceRegistration,
  JoinRequest,
  ServedSettings,
} from "../../core/protocol/membership.ts";
import type { Authority } from "../authority.ts";
import { InstanceAdmission } from "./instance_admission.ts";
import type { InstanceLauncher } from "./launcher.ts";
import { ManagedInstance } from "./managed_instance.ts";
import type { ManagerEvent } from "../manager_event.ts";

/** Time for an instance to stop before it is killed. */
const DEFAULT_STOP_TIMEOUT_MS = 5_000;
/** Time for an instance to join again after its connection ended. */
export const DEFAULT_REJOIN_WAIT_MS = 2_000;
/** Time for a new process to join. One that takes longer will never do so. */
const JOIN_TIMEOUT_MS = 60_000;
/** Time for an instance to take note that another manager takes over. */
const HANDOVER_TIMEOUT_MS = 2_000;
/** More than stop at about the same time; API servers have heard of older ones. */
const MAX_STOPPED = 16;

export interface FleetConfig {
  readonly clock: Clock;
  readonly authority: Authority;
  readonly launcher: InstanceLauncher;
  /** What all its instances serve; absent: the settings of the first instance. */
  readonly settings?: ServedSettings;
  /** Address at which instances join the manager. */
  readonly managerAddress: () => Address;
  /** Hosts on which no instance should start. */
  readonly drainedHosts: () => ReadonlySet<string>;
  readonly stopTimeoutMs?: number;
  readonly rejoinWaitMs?: number;
  /** The type of a new instance, given the types of the instances that stay. */
  readonly newcomerType: (types: readonly InstanceType[]) => InstanceType;
  readonly onEvent: (event: ManagerEvent) => void;
  /** The serving instances have changed, or which of them take requests. */
  readonly onChange: () => void;
  /** An instance has ended, or was given up. */
  readonly onEnd: (instance: ManagedInstance) => void;
}

/** The instances of a manager: how they start, join, serve, stop and get lost. */
export class Fleet {
  readonly #config: FleetConfig;
  readonly #instances = new Map<InstanceId, ManagedInstance>();
  readonly #instanceOfPeer = new Map<Peer, ManagedInstance>();
  readonly #admission: InstanceAdmission;
  /** Together with the number: the name of the next instance that is started. */
  #namePrefix = "instance-";
  #nextNumber = 0;
  /**
   * Blocks of the first instance that served. Later instances get as many: the free memory that they
   * find says nothing about their share, since other instances use the rest.
   */
  #numBlocks: number | null = null;
  #stopped: InstanceId[] = [];
  /** Lost instances whose processes may still be ending. */
  readonly #ending = new Set<ManagedInstance>();
  #isClosed = false;
  /** Another manager has the instances now. */
  #isHandedOver = false;

  constructor(config: FleetConfig) {
    this.#config = config;
    this.#admission = new InstanceAdmission((instanceId, reason) => {
      config.onEvent({ type: "refused", instanceId, reason });
    });
  }

  /** All instances that have not ended, in the order in which they came. */
  get all(): ManagedInstance[] {
    return [...this.#instances.values()];
  }

  /** The serving instances, in the order in which they came. */
  get serving(): ManagedInstance[] {
    return this.all.filter((instance) => instance.isServing);
  }

  /** How many instances serve or start, without candidates and instances that are being removed. */
  get numStaying(): number {
    return this.all.filter((instance) => instance.isStaying && !instance.isCandidate).length;
  }

  /** The latest instances that stopped because they were asked to, and not because they failed. */
  get stopped(): readonly InstanceId[] {
    return this.#stopped;
  }

  /** Instances that were refused because they serve something else. */
  get refused(): readonly InstanceRegistration[] {
    return this.#admission.refused;
  }

  /** What all instances serve; undefined while that is not known. */
  get settings(): ServedSettings | undefined {
    return this.#config.settings ?? this.serving[0]?.registration ?? undefined;
  }

  get size(): number {
    return this.#instances.size;
  }

  /** An instance of this name has not ended. */
  has(instanceId: InstanceId): boolean {
    return this.#instances.has(instanceId);
  }

  /** @throws {LlumnixError} there is no such instance */
  get(instanceId: InstanceId): ManagedInstance {
    const instance = this.#instances.get(instanceId);
    if (instance && !instance.isLost) return instance;
    throw new LlumnixError("not_found", `there is no instance "${instanceId}"`);
  }

  /** Whether there is such an instance, and it can take requests. */
  isAvailable(instanceId: InstanceId): boolean {
    return this.#instances.get(instanceId)?.isAvailable === true;
  }

  /** Why no instance can start until an operator keeps a host; null: one can. */
  get refusal(): string | null {
    const { launcher, managerAddress, drainedHosts } = this.#config;
    return launcher.refusal?.(managerAddress(), drainedHosts()) ?? null;
  }

  /** A previous manager gave names too, perhaps to instances that cannot be reached now. */
  useFreshNames(): void {
    this.#namePrefix = `instance-${Math.floor(this.#config.clock.nowMs()).toString(36)}-`;
  }

  /**
   * Starts an instance.
   * @param replaces see {@linkcode LaunchRequest}
   * @returns its id, once it serves
   * @throws {LlumnixError} it ended before it served; its own error if it sent one
   * @throws {UnavailableError} the manager is stopping
   * @throws {ConflictError} the host where instances start is drained
   */
  async start(replaces?: InstanceId): Promise<InstanceId> {
    if (this.#isClosed) throw new UnavailableError("the manager is stopping");
    const { clock, launcher, managerAddress, drainedHosts, onEvent } = this.#config;
    const { refusal } = this;
    if (refusal !== null) throw new ConflictError(refusal);
    const instanceId = this.#freshName();
    const instance = this.#expect(instanceId);
    const launching = instance.process.launch(launcher, {
      instanceId,
      managerAddress: managerAddress(),
      avoidHosts: drainedHosts(),
      numBlocks: this.#numBlocks,
      startedBy: "manager",
      replaces,
    });
    const launched = await launching.catch((error) => {
      if (instance.hasJoined) return null; // it runs: only the answer of its host's agent is lost
      this.#instances.delete(instanceId);
      throw error;
    });
    if (launched !== null) {
      const { pid, host, exited } = launched;
      onEvent({ type: "launched", instanceId, pid, host });
      exited.then(() => this.lose(instance));
    }
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
   * @throws {LlumnixError} it may not join: see {@linkcode InstanceAdmission.checkJoin} and
   *   {@linkcode checkSettings}
   */
  join(request: JoinRequest, peer: Peer): ManagedInstance {
    const { instanceId, registration } = request;
    if (registration) this.checkSettings(registration);
    const holder = this.#instances.get(instanceId);
    const isHosted = this.#config.launcher.has?.(instanceId) === true;
    this.#admission.checkJoin(request, holder, peer, isHosted);
    const instance = holder ?? this.#expect(instanceId);
    const replaced = instance.join(request, peer);
    this.#instanceOfPeer.set(peer, instance);
    if (replaced !== peer) replaced?.close(); // an instance may repeat its join
    return instance;
  }

  /** An instance serves, or serves again. Call {@linkcode checkSettings} before. */
  register(registration: InstanceRegistration, peer: Peer): void {
    const { clock, launcher, onChange, onEvent } = this.#config;
    const instance = this.#named(registration.instanceId, peer);
    this.#admission.noteRegistered(registration.instanceId);
    instance.register(registration, clock.nowMs());
    instance.process.adopt(() => launcher.adopt?.(registration, peer.pid));
    launcher.noteServing?.(registration);
    this.#numBlocks ??= registration.totalBlocks;
    onEvent({ type: "registered", registration });
    onChange();
  }

  /** Processes can be reached that could not be: takes hold of those of serving instances. */
  adoptAll(): void {
    const { launcher } = this.#config;
    for (const { registration, peer, process } of this.serving) {
      process.adopt(() => launcher.adopt?.(registration!, peer?.pid ?? null));
    }
  }

  /**
   * An instance reports.
   * @returns its latest state, with the finished and received requests of this report
   * @throws {MessageError} no instance has joined over this connection, or it reports for another
   */
  takeInfo(info: InstanceInfo, peer: Peer): InstanceInfo {
    return this.#named(info.instanceId, peer).takeInfo(info);
  }

  /** An instance sends the error that ends it. Its end may take a moment, if a step hangs. */
  noteFailure(error: ErrorRecord, peer: Peer): void {
    this.of(peer).noteFailure(error);
    this.#config.onChange();
  }

  /** A connection has ended. A serving instance has a moment to join again; its requests run on. */
  closed(peer: Peer): void {
    const instance = this.#instanceOfPeer.get(peer);
    this.#instanceOfPeer.delete(peer);
    if (!instance || instance.peer !== peer || this.#isHandedOver) return;
    instance.disconnect();
    const mayRejoin = instance.mayRejoin && !this.#isClosed;
    if (!mayRejoin || instance.process.isAdoptedAndEnded) {
      this.lose(instance);
      return;
    }
    const { clock, rejoinWaitMs = DEFAULT_REJOIN_WAIT_MS, onChange } = this.#config;
    onChange();
    instance.awaitRejoin(clock, rejoinWaitMs, () => {
      this.lose(instance, "lost its connection");
    });
  }

  /** The instance at the other end of a connection. */
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
   * An instance is lost: its process ended, its connection ended for good, or it hangs. A no-op after
   * the first of these.
   * @param cause why the manager gives it up while its process runs
   */
  async lose(instance: ManagedInstance, cause: string | null = null): Promise<void> {
    if (this.#isHandedOver) return;
    const wasStopping = instance.phase === "stopping";
    if (!instance.markLost()) return;
    const { clock, onChange, onEnd, onEvent } = this.#config;
    const { instanceId } = instance;
    const endsByItself = () => instance.drain?.by === "itself";
    this.#admission.tombstones.add(instanceId, instance.incarnation);
    if (endsByItself()) this.#noteStopped(instanceId);
    onChange();
    const reason = await instance.describeEnd(clock, cause);
    instance.failStart(reason);
    this.#instances.delete(instanceId);
    if (this.#isClosed) return;
    this.#letEnd(instance);
    if (wasStopping || endsByItself()) onEvent({ type: "stopped", instanceId });
    else if (instance.isCandidate) onEvent({ type: "start_failed", reason, retryMs: null });
    else onEvent({ type: "lost", instanceId, reason });
    onEnd(instance);
  }

  /** Kills an instance of a previous manager, unless it has joined this one. */
  async killOrphan(instanceId: InstanceId): Promise<void> {
    const { tombstones } = this.#admission;
    if (this.#instances.has(instanceId) || tombstones.hasName(instanceId)) return;
    tombstones.add(instanceId);
    const { launcher, managerAddress, onEvent } = this.#config;
    const isKilled = await launcher.killOrphan?.(instanceId, managerAddress()) === true;
    if (isKilled) onEvent({ type: "orphan_killed", instanceId });
  }

  /** Asks an instance to stop, and kills it if it has not ended in time. */
  async stop(instance: ManagedInstance): Promise<void> {
    instance.askToStop();
    this.#noteStopped(instance.instanceId);
    this.#config.onChange();
    await this.#killUnlessEnded([instance]);
    await this.lose(instance);
  }

  /** Asks all instances to stop, and kills those that do not. No instance starts or joins any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#admission.close();
    const running = this.all;
    await Promise.all(running.map(({ process }) => process.untilLaunched()));
    for (const instance of running) {
      instance.cancelRejoinWait();
      instance.askToStop();
    }
    await this.#killUnlessEnded([...running, ...this.#ending]);
  }

  /**
   * Lets the serving instances go on without this manager, and tells them how long to look for the one
   * that takes over. No instance starts or joins any more.
   */
  async handOver(waitMs: number): Promise<void> {
    this.#isClosed = true;
    this.#isHandedOver = true;
    this.#admission.close();
    const options = { timeoutMs: HANDOVER_TIMEOUT_MS };
    const decision = this.#config.authority.stamp;
    if (decision === null) return;
    const data = { ...decision, waitMs };
    await Promise.all(this.serving.map(async (instance) => {
      instance.cancelRejoinWait();
      // One that does not answer is lost, as it would be without the handover.
      await instance.peer?.call("handover", { data }, options).catch(() => {});
    }));
  }

  /** Ends the instances' processes at once; {@linkcode close} then has nothing to wait for. */
  kill(): void {
    for (const instance of this.#instances.values()) instance.process.kill();
  }

  /** Skips names that instances have which others started, whether they have joined or not. */
  #freshName(): InstanceId {
    for (;;) {
      const name = `${this.#namePrefix}${this.#nextNumber++}`;
      const isTaken = this.#instances.has(name) || this.#config.launcher.has?.(name) === true;
      if (!isTaken && !this.#admission.tombstones.hasName(name)) return name;
    }
  }

  #expect(instanceId: InstanceId): ManagedInstance {
    this.#stopped = this.#stopped.filter((one) => one !== instanceId);
    const { newcomerType, authority } = this.#config;
    const types = this.all.filter((one) => one.isStaying).map(({ type }) => type);
    const instance = new ManagedInstance(instanceId, newcomerType(types), authority);
    this.#instances.set(instanceId, instance);
    return instance;
  }

  /** @throws {UsageError} the instance serves something else than the others */
  checkSettings(registration: InstanceRegistration): void {
    const { settings } = this.#config;
    if (settings) {
      return this.#admission.checkSettings(registration, { settings, owner: "this manager" });
    }
    const other = this.serving.find(({ instanceId }) => instanceId !== registration.instanceId);
    if (!other) return;
    const { instanceId: owner } = other;
    this.#admission.checkSettings(registration, { settings: other.registration!, owner });
  }

  #noteStopped(instanceId: InstanceId): void {
    this.#stopped = [...this.#stopped, instanceId].slice(-MAX_STOPPED);
  }

  /** Gives a lost instance time to end by itself. Only {@linkcode close} waits for that. */
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
    await Promise.all(instances.map(({ process }) => process.untilEnded(clock)));
    cancel();
  }
}
