import type { Address, Bus, Listener, Peer, Service } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { type ErrorRecord, LlumnixError, toErrorRecord, UnavailableError } from "../core/errors.ts";
import type {
  DispatchReply,
  DispatchRequest,
  InstanceId,
  InstanceInfo,
  InstanceList,
  InstanceProgress,
  InstanceRegistration,
  JoinReply,
  JoinRequest,
} from "../core/messages.ts";
import type { ManagerOptions, MigrationOptions, ScalingOptions } from "../core/options.ts";
import { Random } from "../core/random.ts";
import { Dispatcher } from "./dispatch/dispatcher.ts";
import { AdminService } from "./admin_service.ts";
import { expectedStepsOn, newcomerType } from "./disaggregation.ts";
import { HealthCheck } from "./health_check.ts";
import type { InstanceLauncher } from "./launcher.ts";
import { ManagedInstance } from "./managed_instance.ts";
import type { ManagerEvent } from "./manager_event.ts";
import { type ManagerStatistics, StatisticsCounter } from "./manager_statistics.ts";
import { GroupKeeper, type GroupOptions } from "./migration_group.ts";
import { MigrationLoop } from "./migration_loop.ts";
import { ScalingLoop } from "./scaling_loop.ts";

/** Time that instances get to stop before they are killed. */
const DEFAULT_STOP_TIMEOUT_MS = 5_000;
/** Time that an instance gets to join again after its connection ended. */
const DEFAULT_REJOIN_WAIT_MS = 2_000;
/** A request that was dispatched to an instance before it drained has arrived there by then. */
const DISPATCH_SETTLED_MS = 1_000;
const RECOVERY_POLL_MS = 100;

export type { ManagerEvent };

export interface ManagerConfig {
  readonly bus: Bus;
  /** Where the manager listens; instances are told the first. */
  readonly addresses: readonly [Address, ...Address[]];
  readonly options: ManagerOptions;
  /** Absent: requests move only from instances that are to be stopped. */
  readonly migration?: MigrationOptions;
  /** For migration backends whose instances form a group. */
  readonly migrationGroup?: GroupOptions;
  /** Absent: instances come and go only as told. */
  readonly scaling?: ScalingOptions;
  readonly launcher: InstanceLauncher;
  readonly clock: Clock;
  readonly onEvent?: (event: ManagerEvent) => void;
  readonly stopTimeoutMs?: number;
  readonly rejoinWaitMs?: number;
  /** Of what is decided by lot. */
  readonly seed?: number;
}

/**
 * Starts instances, knows which of them serve, and decides which takes a request, which requests
 * move, and how many instances there are. Tokens do not pass through it.
 */
export class Manager {
  readonly #config: ManagerConfig;
  readonly #dispatcher: Dispatcher;
  readonly #instances = new Map<InstanceId, ManagedInstance>();
  readonly #instanceOfPeer = new Map<Peer, ManagedInstance>();
  readonly #subscribers = new Set<Peer>();
  /** Those that serve, sorted by id. */
  #serving: ManagedInstance[] = [];
  /** Requests can go on at a decode instance. */
  #hasDecode = false;
  readonly #migrationLoop: MigrationLoop;
  readonly #group: GroupKeeper | null;
  readonly #loops: readonly { start(): void; stop(): void }[];
  readonly #statistics = new StatisticsCounter();
  #listeners: Listener[] = [];
  /** Instances that there should be. */
  #numExpected: number;
  #listVersion = 0;
  /** Name of the next instance that is started. */
  #namePrefix = "instance-";
  #nextNumber = 0;
  #stopping: Promise<void> | null = null;

  private constructor(config: ManagerConfig) {
    this.#config = config;
    this.#dispatcher = new Dispatcher(config.options, new Random(config.seed ?? 0));
    this.#numExpected = config.options.initialInstances;
    this.#group = this.#groupKeeper();
    this.#migrationLoop = this.#makeMigrationLoop();
    this.#loops = [this.#migrationLoop, this.#healthCheck(), ...this.#scalingLoops()];
  }

  /**
   * Starts a manager without instances.
   * @throws {UnavailableError} an address cannot be bound
   */
  static async listen(config: ManagerConfig): Promise<Manager> {
    const manager = new Manager(config);
    try {
      for (const address of config.addresses) {
        manager.#listeners.push(await config.bus.listen(address, manager.#service()));
      }
    } catch (error) {
      await manager.stop();
      throw error;
    }
    for (const loop of manager.#loops) loop.start();
    return manager;
  }

  /**
   * Starts the initial instances and waits until all of them serve. After an error, `stop` ends
   * those that run.
   * @throws {LlumnixError} an instance ended before it served; its own error when it sent one
   */
  async startInstances(): Promise<void> {
    const missing = this.#numExpected - this.#instances.size;
    await Promise.all(Array.from({ length: missing }, () => this.#startInstance()));
  }

  /**
   * In place of {@linkcode startInstances}, for a manager that is started again: gives the instances
   * of the one before time to join, then starts those that are missing.
   */
  async recoverInstances(): Promise<void> {
    const { clock, rejoinWaitMs = DEFAULT_REJOIN_WAIT_MS } = this.#config;
    // Instances that cannot be reached now may still have the names that were given before.
    this.#namePrefix = `instance-${Math.floor(clock.nowMs()).toString(36)}-`;
    const deadlineMs = clock.nowMs() + rejoinWaitMs;
    while (this.#serving.length < this.#numExpected && clock.nowMs() < deadlineMs) {
      await sleep(clock, Math.min(rejoinWaitMs, RECOVERY_POLL_MS));
    }
    if (this.#stopping === null) await this.startInstances();
  }

  /**
   * Starts one more instance.
   * @returns its id, when it serves
   * @throws {LlumnixError} it ended before
   * @throws {UnavailableError} the manager is stopping
   */
  async addInstance(): Promise<InstanceId> {
    this.#numExpected++;
    try {
      return await this.#startInstance();
    } catch (error) {
      this.#numExpected--;
      throw error;
    }
  }

  /**
   * Lets an instance take no more requests, and moves those that it has to others. Those that cannot
   * leave finish where they are.
   * @returns true when it has none any more; false when it is gone, or {@linkcode keepInstance} was
   *   called before
   * @throws {LlumnixError} there is no such instance
   */
  async drain(instanceId: InstanceId): Promise<boolean> {
    const instance = this.#instance(instanceId);
    if (!instance.isDraining) {
      instance.isDraining = true;
      this.#updateServing();
      this.#emit({ type: "draining", instanceId });
    }
    const { clock, options } = this.#config;
    while (instance.isServing && instance.isDraining && this.#stopping === null) {
      if (this.#isDrained(instance)) return true;
      await sleep(clock, options.pollingInterval * 1000);
    }
    return false;
  }

  /** Ends the draining of an instance that is needed after all. */
  keepInstance(instanceId: InstanceId): void {
    const instance = this.#instance(instanceId);
    if (!instance.isDraining || instance.isStopping) return;
    instance.isDraining = false;
    this.#updateServing();
    this.#emit({ type: "kept", instanceId });
  }

  /**
   * Drains an instance and stops it.
   * @returns false when it was gone before, or is kept
   * @throws {LlumnixError} there is no such instance
   */
  async removeInstance(instanceId: InstanceId): Promise<boolean> {
    if (!await this.drain(instanceId)) return false;
    const instance = this.#instance(instanceId);
    this.#numExpected--;
    instance.askToStop();
    this.#updateServing();
    await this.#killUnlessEnded([instance]);
    await this.#lose(instance);
    return true;
  }

  statistics(): ManagerStatistics {
    return this.#statistics.snapshot();
  }

  /** Instances that serve, sorted by id. */
  instances(): InstanceRegistration[] {
    return this.#serving.map((instance) => instance.registration!);
  }

  /** Last reports of the instances that serve. */
  infos(): InstanceInfo[] {
    return this.#serving.flatMap(({ info }) => info ?? []);
  }

  /** Requests that were dispatched and are in no report yet. */
  get numPendingDispatches(): number {
    this.#dispatcher.expire(this.#config.clock.nowMs());
    return this.#dispatcher.numPending;
  }

  /** Instances that serve or are on the way there. */
  get numInstances(): number {
    return this.#instances.size;
  }

  /** Ends the instances' processes at once; {@linkcode stop} then has nothing to wait for. */
  kill(): void {
    for (const { launched } of this.#instances.values()) launched?.stop("SIGKILL");
  }

  /**
   * Asks the instances to stop, waits, kills those that do not within the time limit, and closes
   * all connections. Idempotent.
   */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  async #startInstance(): Promise<InstanceId> {
    if (this.#stopping) throw new UnavailableError("the manager is stopping");
    const instanceId = `${this.#namePrefix}${this.#nextNumber++}`;
    const instance = this.#expect(instanceId);
    const managerAddress = this.#listeners[0].address;
    let launched;
    try {
      instance.launching = this.#config.launcher.launch({ instanceId, managerAddress });
      launched = await instance.launching;
    } catch (error) {
      this.#instances.delete(instanceId);
      throw error;
    }
    instance.launched = launched;
    this.#statistics.counters.launchedInstances++;
    this.#emit({ type: "launched", instanceId, pid: launched.pid });
    launched.exited.then(() => this.#lose(instance));
    await instance.ready;
    return instanceId;
  }

  /** One more instance, of the type that is wanted. */
  #expect(instanceId: InstanceId): ManagedInstance {
    const { migration, options } = this.#config;
    const types = [...this.#instances.values()]
      .filter(({ isDraining, isStopping, isLost }) => !isDraining && !isStopping && !isLost)
      .map(({ type }) => type);
    const numPrefill = migration?.enablePdDisagg ? options.numDispatchInstances : null;
    const instance = new ManagedInstance(instanceId, newcomerType(types, numPrefill));
    this.#instances.set(instanceId, instance);
    return instance;
  }

  #isDrained(instance: ManagedInstance): boolean {
    const sinceDispatchMs = this.#config.clock.nowMs() - instance.lastDispatchMs;
    return instance.isEmpty && instance.migrationId === null &&
      sinceDispatchMs >= DISPATCH_SETTLED_MS;
  }

  #makeMigrationLoop(): MigrationLoop {
    return new MigrationLoop({
      ...this.#config,
      instances: () => this.#servingInOrder(),
      isInGroup: (instanceId) => this.#group?.isReady(instanceId) ?? true,
      onReport: (report) => {
        this.#statistics.noteMigration(report);
        if (report.outcome !== "nothing") this.#emit({ type: "migrated", report });
      },
      onUnanswered: ({ migrationId, destination }, sourceId, reason) => {
        this.#statistics.noteUnanswered();
        const destinationId = destination.instanceId;
        const type = "migration_unanswered";
        this.#emit({ type, migrationId, sourceId, destinationId, reason });
      },
    });
  }

  #groupKeeper(): GroupKeeper | null {
    const { migrationGroup, clock } = this.#config;
    if (!migrationGroup) return null;
    return new GroupKeeper({
      clock,
      options: migrationGroup,
      instances: () => this.#servingInOrder(),
      onFormed: (group) => this.#emit({ type: "group_formed", ...group }),
    });
  }

  #healthCheck(): HealthCheck {
    return new HealthCheck({
      clock: this.#config.clock,
      instances: () => this.#serving,
      onHanging: (instance) => this.#lose(instance, "did not answer"),
    });
  }

  #scalingLoops(): ScalingLoop[] {
    const { scaling } = this.#config;
    if (!scaling?.enableScaling) return [];
    const loop = new ScalingLoop({
      ...this.#config,
      scaling,
      instances: () => [...this.#instances.values()],
      add: () => {
        this.addInstance().catch((error) => {
          this.#emit({ type: "start_failed", reason: toErrorRecord(error).message });
        });
      },
      remove: ({ instanceId }) => this.removeInstance(instanceId),
      keep: ({ instanceId }) => this.keepInstance(instanceId),
    });
    return [loop];
  }

  #servingInOrder(): ManagedInstance[] {
    return [...this.#instances.values()].filter((instance) => instance.isServing);
  }

  #instance(instanceId: InstanceId): ManagedInstance {
    const instance = this.#instances.get(instanceId);
    if (instance && !instance.isLost) return instance;
    throw new LlumnixError("not_found", `there is no instance "${instanceId}"`);
  }

  #service(): Service {
    return {
      calls: {
        join: ({ data }, peer) => ({ data: this.#join(data as JoinRequest, peer) }),
        register: ({ data }, peer) => {
          this.#register(data as InstanceRegistration, peer);
          return { data: null };
        },
        subscribe: (_, peer) => {
          this.#subscribers.add(peer);
          peer.notify("instances", { data: this.#instanceList() });
          return { data: null };
        },
        ping: () => ({ data: null }),
        dispatch: ({ data }) => ({ data: this.#dispatch(data as DispatchRequest) }),
        ...this.#admin().calls,
      },
      notifications: {
        progress: ({ data }) => {
          this.#emit({ type: "progress", progress: data as InstanceProgress });
        },
        info: ({ data }, peer) => {
          this.#takeInfo(data as InstanceInfo, peer);
        },
        failed: ({ data }, peer) => {
          this.#instanceOf(peer).failure = data as ErrorRecord;
        },
      },
      onClose: (peer) => {
        this.#subscribers.delete(peer);
        const instance = this.#instanceOfPeer.get(peer);
        this.#instanceOfPeer.delete(peer);
        if (instance?.peer === peer) this.#disconnect(instance);
      },
    };
  }

  #admin(): AdminService {
    return new AdminService({
      ...this.#config,
      instances: () => [...this.#instances.values()],
      isDrained: (instance) => this.#isDrained(instance),
      add: () => this.addInstance(),
      drain: (instanceId) => this.drain(instanceId),
      keep: (instanceId) => this.keepInstance(instanceId),
      remove: (instanceId) => this.removeInstance(instanceId),
      migrate: (...order) => this.#migrationLoop.migrateRequest(...order),
    });
  }

  #join({ instanceId, isRunning = false }: JoinRequest, peer: Peer): JoinReply {
    let instance = this.#instances.get(instanceId);
    const isExpected = instance
      ? isRunning || instance.peer === null || instance.peer === peer
      : isRunning;
    if (!isExpected || instance?.isLost || this.#stopping) {
      throw new UnavailableError(`the manager does not expect an instance "${instanceId}"`);
    }
    instance ??= this.#expect(instanceId);
    const former = instance.peer;
    instance.peer = peer;
    this.#instanceOfPeer.set(peer, instance);
    if (former !== peer) former?.close(); // it may say it twice
    return {
      infoIntervalMs: this.#config.options.pollingInterval * 1000 / 2,
      instanceType: instance.type,
    };
  }

  /** An instance that serves gets a moment to come back; its requests run on meanwhile. */
  #disconnect(instance: ManagedInstance): void {
    instance.peer = null;
    instance.noteDisconnected();
    const { clock, rejoinWaitMs = DEFAULT_REJOIN_WAIT_MS } = this.#config;
    if (!instance.isServing || this.#stopping) {
      this.#lose(instance);
      return;
    }
    this.#updateServing();
    instance.cancelRejoinWait = clock.after(rejoinWaitMs, () => this.#lose(instance));
  }

  #register(registration: InstanceRegistration, peer: Peer): void {
    const instance = this.#instanceOf(peer);
    instance.cancelRejoinWait?.();
    instance.register(registration);
    this.#emit({ type: "registered", registration });
    this.#updateServing();
  }

  #takeInfo(info: InstanceInfo, peer: Peer): void {
    const instance = this.#instanceOf(peer);
    instance.info = info;
    instance.wasHeard = true;
    this.#dispatcher.report(info);
    if (info.leavingRequests > 0) this.#migrationLoop.hurry();
  }

  #dispatch(request: DispatchRequest): DispatchReply {
    const nowMs = this.#config.clock.nowMs();
    const instanceId = this.#dispatcher.dispatch(request, nowMs);
    if (instanceId === null) throw new UnavailableError("no instance is serving");
    const instance = this.#instances.get(instanceId)!;
    instance.lastDispatchMs = nowMs;
    this.#statistics.counters.dispatches++;
    const { requestId } = request;
    if (!this.#config.options.disableLogRequestsManager) {
      this.#emit({ type: "dispatched", requestId, instanceId });
    }
    return { instanceId, expectedSteps: expectedStepsOn(instance.type, this.#hasDecode) };
  }

  /** Its process ended, its connection closed for good, or it hangs; whichever is noticed first. */
  async #lose(instance: ManagedInstance, cause = "lost its connection"): Promise<void> {
    if (instance.isLost) return;
    instance.isLost = true;
    instance.cancelRejoinWait?.();
    this.#updateServing();
    const reason = await instance.describeEnd(this.#config.clock, cause);
    instance.failStart(reason);
    const { instanceId } = instance;
    this.#instances.delete(instanceId);
    if (this.#stopping) return;
    const { counters } = this.#statistics;
    if (instance.isStopping) {
      counters.stoppedInstances++;
      this.#emit({ type: "stopped", instanceId });
    } else {
      counters.lostInstances++;
      this.#emit({ type: "lost", instanceId, reason });
    }
  }

  #updateServing(): void {
    const serving = this.#servingInOrder();
    this.#dispatcher.setInstances(serving.map((instance) => ({
      registration: instance.registration!,
      isDraining: !instance.isAvailable,
    })));
    this.#updateDisaggregation(serving);
    this.#serving = serving.sort((a, b) => a.instanceId < b.instanceId ? -1 : 1);
    this.#listVersion++;
    const list = this.#instanceList();
    for (const peer of this.#subscribers) peer.notify("instances", { data: list });
    this.#group?.update();
  }

  /** Without a decode instance all that waits to leave for one goes on where it is. */
  #updateDisaggregation(serving: readonly ManagedInstance[]): void {
    const hadDecode = this.#hasDecode;
    this.#hasDecode = serving.some(({ type, isAvailable }) => type === "decode" && isAvailable);
    if (!hadDecode || this.#hasDecode) return;
    for (const { type, peer } of serving) {
      if (type === "prefill") peer?.notify("stay", { data: null });
    }
  }

  #instanceList(): InstanceList {
    return {
      version: this.#listVersion,
      instances: this.instances(),
      expectedInstances: this.#numExpected,
    };
  }

  #instanceOf(peer: Peer): ManagedInstance {
    const instance = this.#instanceOfPeer.get(peer);
    if (!instance) throw new LlumnixError("internal", `${peer.remote} has not joined`);
    return instance;
  }

  async #stop(): Promise<void> {
    for (const loop of this.#loops) loop.stop();
    this.#group?.stop();
    const running = [...this.#instances.values()];
    await Promise.allSettled(running.map(({ launching }) => launching));
    for (const instance of running) {
      instance.cancelRejoinWait?.();
      instance.askToStop();
    }
    await this.#killUnlessEnded(running);
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    for (const instance of running) instance.noteDisconnected();
  }

  /** Waits for instances that were asked to stop. */
  async #killUnlessEnded(instances: readonly ManagedInstance[]): Promise<void> {
    const { clock, stopTimeoutMs = DEFAULT_STOP_TIMEOUT_MS } = this.#config;
    const cancel = clock.after(stopTimeoutMs, () => {
      for (const instance of instances) instance.kill();
    });
    await Promise.all(instances.map(({ ended }) => ended));
    cancel();
  }

  #emit(event: ManagerEvent): void {
    this.#config.onEvent?.(event);
  }
}
