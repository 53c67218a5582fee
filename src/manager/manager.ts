import type { Address, Bus, Listener, Message, Peer, Service } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import type { Leadership, LeadershipStatus, ProcessIdentity } from "../core/protocol/leadership.ts";
import { UnavailableError } from "../core/errors.ts";
import type { HostStatus } from "../core/protocol/admin.ts";
import type { DispatchReply, DispatchRequest } from "../core/protocol/dispatch.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceInfo } from "../core/protocol/instance_info.ts";
import type {
  InstanceList,
  InstanceRegistration,
  JoinReply,
  JoinRequest,
  ServedSettings,
} from "../core/protocol/membership.ts";
import type { ClusterState } from "../core/protocol/monitoring.ts";
import type { ManagerOptions, MigrationOptions, ScalingOptions } from "../core/options.ts";
import { Random } from "../core/random.ts";
import { Dispatcher } from "./dispatch/dispatcher.ts";
import { Agents } from "./agents/agents.ts";
import { Examination } from "./agents/examination.ts";
import { Authority } from "./authority.ts";
import { AdminService } from "./admin_service.ts";
import { expectedStepsOn, newcomerType } from "./fleet/disaggregation.ts";
import { incompatibilityOf, type MigrationCompatibility } from "./migration/compatibility.ts";
import { Hosts } from "./fleet/hosts.ts";
import { StandingOrderKeeper } from "./fleet/standing_orders.ts";
import { Fleet } from "./fleet/fleet.ts";
import { DEFAULT_INSTANCE_TIMEOUT_MS, InstanceKeeper } from "./fleet/instance_keeper.ts";
import { InstanceRollout } from "./fleet/rollout.ts";
import type { InstanceLauncher } from "./fleet/launcher.ts";
import type { ManagedInstance } from "./fleet/managed_instance.ts";
import type { ManagerEvent } from "./manager_event.ts";
import { Operators } from "./operators.ts";
import { type ManagerStatistics, StatisticsCounter } from "./manager_statistics.ts";
import { GroupKeeper, type GroupOptions } from "./migration/migration_group.ts";
import { MigrationLoop } from "./migration/migration_loop.ts";
import { ReportPace } from "./report_pace.ts";
import { UpdateGate } from "./update_gate.ts";
import { Monitor } from "./monitoring/monitor.ts";
import { IsolationLease } from "./dispatch/isolation_lease.ts";

/** Time to connect to an instance on another host. */
const REACH_TIMEOUT_MS = 2_000;

export interface ManagerConfig {
  readonly bus: Bus;
  /** Where the manager listens; its instances connect to the first address. */
  readonly addresses: readonly [Address, ...Address[]];
  readonly options: ManagerOptions;
  /** Absent: requests move only away from draining instances. */
  readonly migration?: MigrationOptions;
  /** What its instances serve; others are refused. Absent: the settings of the first instance. */
  readonly settings?: ServedSettings;
  /** What an instance needs to take part in migration. Absent: a migration backend is enough. */
  readonly migrationCompatibility?: MigrationCompatibility;
  /** Set if the instances of the migration backend form a group. */
  readonly migrationGroup?: GroupOptions;
  /** Absent: the number of instances changes only by calls. */
  readonly scaling?: ScalingOptions;
  /** What operators of other processes have to have; absent: only those of this process may operate. */
  readonly adminToken?: string | null;
  /** Null: the agents of hosts start instances. */
  readonly launcher: InstanceLauncher | null;
  readonly clock: Clock;
  readonly onEvent?: (event: ManagerEvent) => void;
  /** An instance that is silent for this long is given up. */
  readonly instanceTimeoutMs?: number;
  /** Time for the requests of an instance that is being removed to move away or finish. */
  readonly drainTimeoutMs?: number;
  /** A host whose agent is away for so long is lost for good; default 10 minutes. */
  readonly lostHostMs?: number;
  readonly stopTimeoutMs?: number;
  readonly rejoinWaitMs?: number;
  /** Seed of random choices; default 0. */
  readonly seed?: number;
  /** Absent: this manager is the only one. */
  readonly cluster?: ManagerCluster;
}

/** A manager that is one of several, of which one leads. */
export interface ManagerCluster {
  /** Of this process alone. */
  readonly processId: string;
  /** Name of its host; absent: not known. */
  readonly hostName?: string;
  /** This manager's leadership; null: another one leads. */
  readonly leadership: () => Leadership | null;
  /** For people. */
  readonly status?: () => LeadershipStatus;
  /** A receiver has refused a decision, because it knows this leadership. */
  readonly onSuperseded: (known: Leadership) => void;
  /** An instance is there: it says so to every manager, whoever leads. */
  readonly onHeard?: (instanceId: InstanceId) => void;
}

/**
 * Starts instances, and decides which instance takes a request, which requests move, and how many
 * instances there are. Tokens do not pass through it. What it does and why is in src/manager/README.md.
 */
export class Manager {
  readonly #config: ManagerConfig;
  readonly #authority: Authority;
  readonly #operators: Operators;
  readonly #dispatcher: Dispatcher;
  /** Null: instances run on this host. */
  readonly #agents: Agents | null;
  readonly #examination: Examination;
  readonly #fleet: Fleet;
  readonly #keeper: InstanceKeeper;
  readonly #hosts: Hosts;
  readonly #orders: StandingOrderKeeper;
  readonly #pace: ReportPace;
  /** Of the serving instances, or of which of them take requests. */
  readonly #changes: UpdateGate;
  readonly #subscribers = new Set<Peer>();
  /** The serving instances, sorted by id. */
  #serving: ManagedInstance[] = [];
  /** A decode instance serves that takes part in migration: prefill instances give requests away. */
  #hasDecode = false;
  readonly #migrationLoop: MigrationLoop;
  readonly #group: GroupKeeper | null;
  readonly #statistics = new StatisticsCounter();
  readonly #monitor: Monitor;
  readonly #isolationLease = new IsolationLease();
  #listeners: Listener[] = [];
  #listVersion = 0;
  #stopping: Promise<void> | null = null;

  private constructor(config: ManagerConfig) {
    this.#config = config;
    this.#authority = new Authority(config.cluster?.leadership);
    this.#operators = new Operators(config.adminToken ?? null, config.clock);
    this.#dispatcher = new Dispatcher(config.options, new Random(config.seed ?? 0));
    this.#monitor = this.#makeMonitor();
    this.#agents = config.launcher === null ? this.#makeAgents() : null;
    this.#examination = new Examination({
      authority: this.#authority,
      agents: this.#agents,
      process: config.cluster?.processId ?? "manager",
      hostName: config.cluster?.hostName,
      settings: config.settings,
      instances: () => this.instances(),
    });
    const launcher = config.launcher ?? this.#agents!;
    this.#fleet = this.#makeFleet(launcher);
    this.#pace = new ReportPace(config.options.pollingInterval * 1000);
    this.#changes = new UpdateGate({
      clock: config.clock,
      numInstances: () => this.#fleet.size,
      update: () => this.#updateServing(),
    });
    this.#keeper = new InstanceKeeper({
      ...config,
      launcher,
      fleet: this.#fleet,
      onEvent: (event) => this.#emit(event),
      onChange: () => this.#changes.note(),
      onOrder: (decided) => {
        if (decided === undefined) this.#orders.note();
        else this.#orders.noteDecision(decided);
      },
    });
    this.#hosts = new Hosts({
      clock: config.clock,
      instances: () => this.#fleet.all,
      withAgents: () => this.#agents?.names ?? [],
      keeper: this.#keeper,
      onOrder: () => this.#orders.note(),
    });
    this.#orders = this.#makeStandingOrders();
    this.#group = this.#makeGroupKeeper();
    this.#migrationLoop = this.#makeMigrationLoop();
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
    manager.#keeper.start();
    manager.#agents?.start();
    manager.#migrationLoop.start();
    return manager;
  }

  /**
   * Starts the initial instances and waits until all of them serve. After an error, call `stop` to end
   * the instances that run.
   * @throws {LlumnixError} an instance ended before it served; its own error if it sent one
   */
  async startInstances(): Promise<void> {
    await this.#keeper.startMissing();
  }

  /**
   * In place of {@linkcode startInstances}, for a manager that is started again: gives the instances
   * of the previous manager time to join, then starts the missing ones.
   * @param survivors ids of all instances that may join; null: not known
   * @param numWanted instances that there should be; default: as many as the options say
   */
  async recoverInstances(
    survivors: readonly InstanceId[] | null = null,
    numWanted?: number,
  ): Promise<void> {
    await this.#keeper.recover(survivors, numWanted);
  }

  /**
   * Replaces the instances that this manager has taken over from another, one after the other. An
   * instance that was started by hand stays: only its operator knows how to start it. Instances on hosts
   * with agents stay: they run the executable of their agent, which asks for it once it is upgraded. Of a
   * cluster's instances those of other hosts stay, which this manager cannot start again there.
   * @param onReplace see {@linkcode InstanceRollout}
   */
  replaceTakenOver(onReplace: (instanceId: InstanceId, number: number) => void): InstanceRollout {
    const { cluster } = this.#config;
    const isOurs = ({ process, startedBy }: ManagedInstance) =>
      !process.wasLaunched && startedBy !== "hand" &&
      (cluster === undefined || process.isAdopted);
    const instances = (this.#agents === null ? this.#fleet.serving.filter(isOurs) : [])
      .map(({ instanceId }) => instanceId)
      .sort();
    return new InstanceRollout({ keeper: this.#keeper, instances, onReplace });
  }

  /**
   * Leaves the instances, and their requests, to another manager that is about to listen at the same
   * address. In place of {@linkcode stop}, which then does nothing.
   * @param waitMs how long instances look for it
   * @param resign gives the leadership up, once the instances know, and while this manager still listens
   */
  handOver(waitMs: number, resign?: () => Promise<void>): Promise<void> {
    return this.#stopping ??= this.#handOver(waitMs, resign);
  }

  /** How many instances there should be. */
  get numWanted(): number {
    return this.#keeper.numWanted;
  }

  /** See {@linkcode InstanceKeeper.add}. */
  async addInstance(): Promise<InstanceId> {
    return await this.#keeper.add();
  }

  /** As an operator does: see {@linkcode InstanceKeeper.drain}. */
  async drain(instanceId: InstanceId): Promise<boolean> {
    return await this.#keeper.drain(instanceId, "operator");
  }

  /** See {@linkcode InstanceKeeper.keep}. */
  keepInstance(instanceId: InstanceId): void {
    this.#keeper.keep(instanceId);
  }

  /** As an operator does: see {@linkcode InstanceKeeper.remove}. */
  async removeInstance(instanceId: InstanceId): Promise<boolean> {
    return await this.#keeper.remove(instanceId, "operator");
  }

  /** See {@linkcode Hosts.drain}. */
  async drainHost(hostName: string, atOnce?: number): Promise<boolean> {
    return await this.#hosts.drain(hostName, atOnce);
  }

  /** See {@linkcode Hosts.keep}. */
  keepHost(hostName: string): void {
    this.#hosts.keep(hostName);
  }

  /** See {@linkcode Hosts.statuses}. */
  hosts(): HostStatus[] {
    return this.#hosts.statuses();
  }

  /**
   * The service is about to end: requests go on where they are, and instances neither come nor go.
   * Instances that got the same signal as this process serve on until {@linkcode stop}.
   */
  windDown(): void {
    this.#keeper.windDown();
  }

  /** See {@linkcode InstanceKeeper.finishRequests}. */
  async finishRequests(limitMs: number): Promise<void> {
    await this.#keeper.finishRequests(limitMs);
  }

  statistics(): ManagerStatistics {
    return this.#statistics.snapshot();
  }

  /** The serving instances, sorted by id. */
  instances(): InstanceRegistration[] {
    this.#changes.flush();
    return this.#serving.map((instance) => instance.registration!);
  }

  /** The latest reports of the serving instances. */
  infos(): InstanceInfo[] {
    this.#changes.flush();
    return this.#serving.flatMap(({ info }) => info ?? []);
  }

  /** What watchers are told: all instances with their loads, and counters. */
  clusterState(): ClusterState {
    return this.#monitor.state();
  }

  /** Requests that were dispatched and that no instance has reported yet. */
  get numPendingDispatches(): number {
    this.#dispatcher.expire(this.#config.clock.nowMs());
    return this.#dispatcher.numPending;
  }

  /** Instances that have not ended, also those that start. */
  get numInstances(): number {
    return this.#fleet.size;
  }

  /** Ends the instances' processes at once; {@linkcode stop} then has nothing to wait for. */
  kill(): void {
    this.#fleet.kill();
  }

  /**
   * Asks the instances to stop, kills each one that has not ended within the time limit, and closes all
   * connections. Idempotent.
   */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  #makeMigrationLoop(): MigrationLoop {
    return new MigrationLoop({
      ...this.#config,
      authority: this.#authority,
      instances: () => this.#fleet.serving,
      reportIntervalMs: () => this.#pace.intervalMs,
      isHostDrained: (instance) => this.#hosts.isDrained(instance.hostName),
      canMigrate: (instance) =>
        this.#incompatibilityOf(instance) === null &&
        (this.#group?.isReady(instance.instanceId) ?? true),
      onOrder: (migration) => this.#emit({ type: "migration_started", ...migration }),
      onReport: (report, migration) => {
        this.#statistics.noteMigration(report);
        const { outcome, reason } = report;
        if (outcome === "nothing") this.#emit({ type: "nothing_moved", ...migration, reason });
        else this.#emit({ type: "migrated", report, backend: migration.backend });
      },
      onUnanswered: (migration, reason) => {
        this.#statistics.noteUnanswered();
        this.#emit({ type: "migration_unanswered", ...migration, reason });
      },
    });
  }

  #makeMonitor(): Monitor {
    const { clock, options, migration, cluster } = this.#config;
    return new Monitor({
      clock,
      options: { ...options, enableDefrag: migration?.enableDefrag ?? false },
      instances: () => this.#fleet.all,
      dispatchNumbersOf: ({ instanceId }) => this.#dispatcher.numbersOf(instanceId),
      numExpected: () => this.#keeper.numExpected,
      hosts: () => this.#hosts.statuses(),
      leadership: cluster?.status,
      onEvent: (event) => this.#emit(event),
    });
  }

  #makeGroupKeeper(): GroupKeeper | null {
    const { migrationGroup, clock } = this.#config;
    if (!migrationGroup) return null;
    return new GroupKeeper({
      clock,
      options: migrationGroup,
      authority: this.#authority,
      instances: () =>
        this.#fleet.serving.filter((instance) => this.#incompatibilityOf(instance) === null),
      onFormed: (group) => this.#emit({ type: "group_formed", ...group }),
    });
  }

  #makeAgents(): Agents {
    const {
      clock,
      settings,
      lostHostMs,
      instanceTimeoutMs: timeoutMs = DEFAULT_INSTANCE_TIMEOUT_MS,
    } = this.#config;
    return new Agents({
      clock,
      lostHostMs,
      authority: this.#authority,
      settings,
      timeoutMs,
      knows: (instanceId) => this.#fleet.has(instanceId),
      isDrained: (host) => this.#hosts.isDrained(host),
      onEvent: (event) => this.#emit(event),
      onJoin: (orders, peer) => {
        this.#orders.adopt(orders);
        this.#orders.tell(peer);
      },
      replace: (instanceId, isWanted) => this.#keeper.replace(instanceId, isWanted),
      versionOf: (instanceId) =>
        this.#fleet.all.find((one) => one.instanceId === instanceId)?.registration?.version ?? null,
      onRoom: (isNew) => {
        this.#keeper.noteHosts(this.#agents!.initialInstances);
        this.#keeper.noteRoom(isNew);
      },
    });
  }

  #makeStandingOrders(): StandingOrderKeeper {
    return new StandingOrderKeeper({
      clock: this.#config.clock,
      authority: this.#authority,
      instances: () => this.#fleet.all,
      agents: () => this.#agents?.peers ?? [],
      instanceChange: () => this.#keeper.instanceChange,
      hostDrains: () => this.#hosts.notes,
      onAdopt: ({ instanceChange, hostDrains }, ended) => {
        this.#keeper.adoptChange(instanceChange);
        this.#hosts.adopt(hostDrains);
        for (const instance of this.#fleet.all) {
          const hasEnded = ended.has(instance.instanceId);
          if (hasEnded && !this.#hosts.isDrained(instance.hostName)) {
            this.#keeper.revokeDrain(instance);
          }
        }
        for (const instance of this.#fleet.serving) this.#resumeDrain(instance);
      },
    });
  }

  /**
   * Goes on with the drain of an instance that an earlier manager has begun. On a host that is drained, or was
   * kept, the host's order decides: others may be draining there in its place.
   */
  #resumeDrain({ instanceId, hostName }: ManagedInstance): void {
    const order = this.#orders.takeDrain(instanceId);
    if (order === null) return;
    const isOfHost = this.#hosts.isDrained(hostName) || this.#hosts.wasKept(hostName);
    if (isOfHost && !order.isRemoval) return;
    this.#keeper.resumeDrain(instanceId, order.by, order.isRemoval).catch(() => {}); // lost meanwhile
  }

  #makeFleet(launcher: InstanceLauncher): Fleet {
    const { migration, options } = this.#config;
    const numPrefill = migration?.enablePdDisagg ? options.numDispatchInstances : null;
    return new Fleet({
      ...this.#config,
      launcher,
      authority: this.#authority,
      managerAddress: () => this.#listeners[0].address,
      drainedHosts: () => this.#hosts.drained,
      newcomerType: (types) => newcomerType(types, numPrefill),
      onEvent: (event) => this.#emit(event),
      onChange: () => this.#changes.note(),
      onEnd: (instance) => this.#keeper.noteEnd(instance),
    });
  }

  #service(): Service {
    return {
      calls: {
        join: ({ data }, peer) => ({ data: this.#join(data, peer) }),
        register: ({ data }, peer) => {
          this.#register(data, peer);
          return { data: null };
        },
        subscribe: (_, peer) => {
          const decision = this.#authority.demand();
          this.#changes.flush();
          this.#subscribers.add(peer);
          peer.notify("instances", { data: { ...this.#instanceList(), ...decision } });
          return { data: null };
        },
        drain: (_, peer) => ({
          data: {
            ...this.#authority.demand(),
            ...this.#keeper.letDrainItself(this.#fleet.of(peer)),
          },
        }),
        ping: () => ({ data: null }),
        hear: ({ data }) => {
          this.#config.cluster?.onHeard?.(data.instanceId);
          return { data: null };
        },
        identify: () => this.#identify(),
        dispatch: ({ data }) => ({ data: this.#dispatch(data) }),
        operator_challenge: (_, peer) => ({ data: { challenge: this.#operators.challenge(peer) } }),
        operator_prove: async ({ data }, peer) => {
          await this.#operators.prove(data.proof, peer);
          return { data: null };
        },
        ...this.#monitor.calls,
        ...this.#agents?.calls,
        ...this.#admin().calls,
        ...this.#examination.calls,
      },
      notifications: {
        progress: ({ data }) => {
          this.#emit({ type: "progress", progress: data });
        },
        info: ({ data }, peer) => {
          this.#takeInfo(data, peer);
        },
        isolating: ({ data }) => {
          this.#isolationLease.keep(data.frontendId, this.#config.clock.nowMs());
        },
        superseded: ({ data }) => {
          this.#config.cluster?.onSuperseded(data);
        },
        ...this.#monitor.notifications,
        ...this.#agents?.notifications,
        failed: ({ data }, peer) => {
          this.#fleet.noteFailure(data, peer);
        },
      },
      onClose: (peer) => {
        this.#subscribers.delete(peer);
        this.#fleet.closed(peer);
        this.#agents?.closed(peer);
      },
    };
  }

  #admin(): AdminService {
    return new AdminService({
      ...this.#config,
      instances: () => this.#fleet.all,
      checkOperator: (peer) => this.#operators.check(peer),
      frontends: () => [...this.#subscribers],
      keeper: this.#keeper,
      hosts: this.#hosts,
      migrate: (...order) => this.#migrationLoop.migrateRequest(...order),
    });
  }

  #identify(): Message<ProcessIdentity> {
    const { cluster } = this.#config;
    if (cluster === undefined) throw new UnavailableError("this manager is in no cluster");
    return { data: { process: cluster.processId, settings: this.#config.settings } };
  }

  #join(request: JoinRequest, peer: Peer): JoinReply {
    const decision = this.#authority.demand();
    const instance = this.#fleet.join(request, peer);
    this.#orders.adopt(request.orders);
    const { type: instanceType } = instance;
    return { ...decision, infoIntervalMs: this.#pace.intervalMs, instanceType };
  }

  #register(registration: InstanceRegistration, peer: Peer): void {
    const instance = this.#fleet.of(peer);
    this.#fleet.checkSettings(registration);
    const isNew = instance.registration === null;
    this.#fleet.register(registration, peer);
    if (isNew) this.#resumeDrain(instance);
    this.#keeper.noteServing(instance);
    if (isNew) this.#hosts.noteServing(instance);
    this.#orders.tell(peer);
    if (!this.#pace.isUsual) this.#tellPace(instance); // another manager may have told it another one
    this.#checkReach(registration);
    const reason = this.#incompatibilityOf(instance);
    if (reason === null || !this.#config.migration?.enableMigration) return;
    this.#emit({ type: "not_migrating", instanceId: registration.instanceId, reason });
  }

  /** API servers reach an instance at the address that it tells, if this host does. */
  async #checkReach({ instanceId, address }: InstanceRegistration): Promise<void> {
    if (!address.startsWith("tcp:")) return;
    try {
      const options = { timeoutMs: REACH_TIMEOUT_MS };
      await (await this.#config.bus.connect(address, {}, options)).close();
    } catch (error) {
      const reason = (error as Error).message;
      this.#emit({ type: "unreachable", instanceId, address, reason });
    }
  }

  /** Why the instance cannot take part in migration; null: it can. */
  #incompatibilityOf({ registration }: ManagedInstance): string | null {
    const { migrationCompatibility } = this.#config;
    if (registration === null || migrationCompatibility === undefined) return null;
    return incompatibilityOf(registration, migrationCompatibility);
  }

  #takeInfo(info: InstanceInfo, peer: Peer): void {
    this.#monitor.noteInfo(info, this.#fleet.of(peer).info);
    const known = this.#fleet.takeInfo(info, peer);
    this.#dispatcher.report(known);
    if (known.leavingRequests > 0) this.#migrationLoop.hurry();
  }

  #dispatch(request: DispatchRequest): DispatchReply {
    const decision = this.#authority.demand();
    const nowMs = this.#config.clock.nowMs();
    const { isolatedBy, requestId, promptTokens, priority = "normal" } = request;
    if (isolatedBy !== undefined && !this.#isolationLease.take(isolatedBy, nowMs)) {
      throw new UnavailableError("another suspected poison request is being isolated; try again");
    }
    const { dispatches, dispatchSeconds } = this.#monitor.counters;
    let instanceId = this.#dispatcher.dispatch(request, nowMs);
    const isAvailable = instanceId !== null && this.#fleet.isAvailable(instanceId);
    if (!isAvailable && this.#changes.flush()) {
      instanceId = this.#dispatcher.dispatch(request, nowMs);
    }
    if (instanceId === null) {
      dispatches.refused++;
      throw new UnavailableError("no instance is serving");
    }
    dispatches.placed++;
    dispatchSeconds.add((this.#config.clock.nowMs() - nowMs) / 1000);
    const instance = this.#fleet.get(instanceId);
    instance.noteDispatch(nowMs);
    this.#statistics.counters.dispatches++;
    this.#emit({ type: "dispatched", requestId, instanceId, priority, promptTokens });
    const canMigrate = this.#hasDecode && this.#incompatibilityOf(instance) === null;
    const expectedSteps = expectedStepsOn(instance.type, canMigrate);
    return { ...decision, instanceId, expectedSteps };
  }

  #updateServing(): void {
    const { serving } = this.#fleet;
    this.#dispatcher.setInstances(serving.map((instance) => ({
      registration: instance.registration!,
      isDraining: !instance.isAvailable,
    })));
    this.#updateDisaggregation(serving);
    this.#serving = serving.sort((a, b) => a.instanceId < b.instanceId ? -1 : 1);
    this.#listVersion++;
    if (this.#pace.update(serving.length)) {
      for (const instance of serving) this.#tellPace(instance);
    }
    const decision = this.#authority.stamp;
    if (decision === null) return;
    const list = { ...this.#instanceList(), ...decision };
    for (const peer of this.#subscribers) peer.notify("instances", { data: list });
    this.#group?.update();
  }

  #tellPace({ peer }: ManagedInstance): void {
    peer?.notify("report_interval", { data: { infoIntervalMs: this.#pace.intervalMs } });
  }

  /** Once no decode instance is left, requests that wait to move to one go on where they are. */
  #updateDisaggregation(serving: readonly ManagedInstance[]): void {
    const hadDecode = this.#hasDecode;
    this.#hasDecode = serving.some((instance) =>
      instance.type === "decode" && instance.isAvailable &&
      this.#incompatibilityOf(instance) === null
    );
    const data = this.#authority.stamp;
    if (!hadDecode || this.#hasDecode || data === null) return;
    for (const { type, peer } of serving) {
      if (type === "prefill") peer?.notify("stay", { data });
    }
  }

  #instanceList(): InstanceList {
    return {
      version: this.#listVersion,
      instances: this.instances(),
      expectedInstances: this.#keeper.numExpected,
      takesRequests: this.#fleet.serving.some(({ isAvailable }) => isAvailable),
      stopped: this.#fleet.stopped,
      settings: this.#config.settings,
    };
  }

  async #handOver(waitMs: number, resign?: () => Promise<void>): Promise<void> {
    this.#stopDeciding();
    await this.#fleet.handOver(waitMs);
    await resign?.();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    this.#changes.stop();
  }

  #stopDeciding(): void {
    this.#keeper.stop();
    this.#agents?.stop();
    this.#migrationLoop.stop();
    this.#group?.stop();
  }

  async #stop(): Promise<void> {
    this.#stopDeciding();
    const running = this.#fleet.all;
    await this.#fleet.close();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    for (const instance of running) instance.process.noteDisconnected();
    this.#changes.stop();
  }

  #emit(event: ManagerEvent): void {
    this.#statistics.noteEvent(event);
    this.#monitor.note(event);
    this.#config.onEvent?.(event);
  }
}
