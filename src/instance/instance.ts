import type { Address, Bus, Listener, Message, Peer, Service } from "../bus/bus.ts";
import { tcpHost } from "../bus/address.ts";
import { isObeyed, obey } from "../bus/obey.ts";
import type { Clock } from "../core/clock.ts";
import { isForTheUser, LlumnixError, toErrorRecord, UnavailableError } from "../core/errors.ts";
import { LeaderFence } from "../core/leader_fence.ts";
import type { ManagerDecision } from "../core/protocol/leadership.ts";
import type { RequestsQuery, RequestsReply } from "../core/protocol/admin.ts";
import type { ProcessReport } from "../core/protocol/examination.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceInfo, InstanceType } from "../core/protocol/instance_info.ts";
import type {
  InstanceProgress,
  InstanceRegistration,
  JoinRequest,
} from "../core/protocol/membership.ts";
import type {
  MigrateOutOrder,
  MigrationGroup,
  MigrationGroupReply,
  MigrationReport,
} from "../core/protocol/migration.ts";
import type { EngineOptions, TransferOptions } from "../core/options.ts";
import { executorKind } from "../executor/devices.ts";
import type { Executor, ExecutorSpec, OnProgress } from "../executor/executor.ts";
import { blockBytes } from "../kv/layout.ts";
import type { MigrationBackend } from "../kv/transfer/backend.ts";
import { Engine } from "./engine/engine.ts";
import { resolveEngineConfig } from "./engine/engine_config.ts";
import { InfoReporter } from "./engine/info_reporter.ts";
import { InstanceDrain } from "./drain.ts";
import { InstanceService } from "./instance_service.ts";
import { serviceAddress } from "./instance_socket.ts";
import type { CrossoverSetting, PathMeasure } from "./llumlet/crossover.ts";
import { Llumlet } from "./llumlet/llumlet.ts";
import { ManagerSession } from "./manager_session.ts";

/** Most requests that wait in one instance. API servers admit far fewer. */
const MAX_WAITING_REQUESTS = 10_000;
/** Least time between two progress messages. */
const PROGRESS_INTERVAL_MS = 100;
/** How long {@linkcode Instance.close} waits for the running step. */
const CLOSE_TIMEOUT_MS = 2_000;
const DEFAULT_DRAIN_TIMEOUT_MS = 30_000;

export interface InstanceConfig {
  readonly options: EngineOptions;
  readonly instanceId: InstanceId;
  readonly managerAddress: Address;
  /**
   * IP address of this host, where the instance listens and others reach it over TCP. Default: the address
   * that this host has on the way to the manager.
   */
  readonly host?: string;
  /**
   * Name of this host. Default: the address where others reach it over TCP; without TCP the name is not
   * known.
   */
  readonly hostName?: string;
  /** Number of instances that share the cores and the memory of this host. */
  readonly hostShare: number;
  /** Of the process that runs the instance; shown to people. */
  readonly pid: number;
  /** See {@linkcode InstanceRegistration.processStart}. */
  readonly processStart?: string;
  /** See {@linkcode InstanceRegistration.version}. */
  readonly version?: string;
  readonly clock: Clock;
  readonly bus: Bus;
  readonly loadExecutor: (spec: ExecutorSpec, onProgress: OnProgress) => Promise<Executor>;
  /** How long a serving instance that lost its manager tries to join again; 0: it ends at once. */
  readonly rejoinTimeoutMs: number;
  readonly startedBy?: JoinRequest["startedBy"];
  /** How long the instance waits for a manager to join; default 0: one attempt. */
  readonly managerWaitMs?: number;
  readonly onStart?: (event: StartEvent) => void;
  /** How long a draining instance waits until its requests have moved away or finished. */
  readonly drainTimeoutMs?: number;
  /** Absent: requests cannot move to or from this instance. */
  readonly migration?: InstanceMigration;
  /** What is known of the managers' leadership; default: what decisions say of it. */
  readonly fence?: LeaderFence;
}

/** How an instance moves requests to and from other instances. */
export interface InstanceMigration {
  readonly limits: Pick<TransferOptions, "lastStageMaxBlocks" | "maxStages">;
  /** Which running requests are recomputed in place of moved: see `llumlet/crossover.ts`. */
  readonly crossover?: CrossoverSetting;
  readonly onPathMeasured?: (measure: PathMeasure) => void;
  /** Steps run on a device of their own, so that copying does not slow them. Default false. */
  readonly copiesBesideSteps?: boolean;
  /**
   * Returns null if the executor's blocks cannot be moved. The instance closes the backend.
   * @param host IP address where other hosts reach this one; null if all processes are on this host
   */
  openBackend(
    executor: Executor,
    host: string | null,
  ): Promise<MigrationBackend | null> | MigrationBackend | null;
}

/** Progress of an instance that starts. `waiting`: no manager answers yet. */
export type StartEvent =
  | { readonly type: "waiting" | "joined" }
  | { readonly type: "serving"; readonly registration: InstanceRegistration };

/** Why an instance ended. */
export interface InstanceEnd {
  /** 0: it was asked to stop. 2: an error that only the operator can fix. 1: any other error. */
  readonly exitCode: number;
  readonly reason: string;
  /** The manager was told of the error and logs it. */
  readonly isReported?: boolean;
  /** The error, if nobody else reports it. */
  readonly error?: unknown;
}

/**
 * One instance, in a process of its own or not: it joins the manager, loads the model and serves
 * API servers directly. It ends when the manager asks for it, when the manager is gone for good,
 * when the executor fails, or when {@linkcode stop} is called.
 */
export class Instance {
  readonly #config: InstanceConfig;
  readonly #service: InstanceService;
  readonly #drain: InstanceDrain;
  readonly #fence: LeaderFence;
  readonly #manager: ManagerSession;
  readonly #ended = Promise.withResolvers<InstanceEnd>();
  #hasEnded = false;
  #type: InstanceType = "both";
  #reporter: InfoReporter | null = null;
  #executor: Executor | null = null;
  #backend: MigrationBackend | null = null;
  /** Why no request can move to or from this instance any more. */
  #migrationFailure: string | undefined = undefined;
  /** The newest migration group that the manager announced. Older announcements may arrive late. */
  #group: MigrationGroup | null = null;
  #engine: Engine | null = null;
  #llumlet: Llumlet | null = null;
  #listener: Listener | null = null;

  constructor(config: InstanceConfig) {
    const { clock, bus, managerAddress, instanceId, startedBy, pid } = config;
    this.#config = config;
    this.#service = new InstanceService(clock);
    this.#fence = config.fence ?? new LeaderFence(instanceId);
    this.#manager = new ManagerSession({
      bus,
      clock,
      managerAddress,
      instanceId,
      // A host runs one process of a pid at a time. Not random, so that simulations repeat.
      incarnation: `${pid}-${clock.nowMs()}`,
      startedBy,
      managerWaitMs: config.managerWaitMs ?? 0,
      rejoinTimeoutMs: config.rejoinTimeoutMs,
      fence: this.#fence,
      service: this.#managerService(),
      registration: () => this.#registration(),
      hasEnded: () => this.#hasEnded,
      onWait: () => config.onStart?.({ type: "waiting" }),
      onRejoin: () => this.#resumeWithManager(),
      onLost: (reason) => this.#finish({ exitCode: 1, reason }),
    });
    this.#drain = new InstanceDrain({
      clock,
      timeoutMs: config.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS,
      isEmpty: () => !this.isMigrating && this.#engine!.isIdle,
      askManager: () => this.#manager.askToDrain(),
      setAccepting: (isAccepting) => this.#service.isAccepting = isAccepting,
      onDone: () => this.stop("its requests have left or finished"),
    });
  }

  /** Null until the model is loaded. */
  get engine(): Engine | null {
    return this.#engine;
  }

  /** A request is moving to or from this instance. */
  get isMigrating(): boolean {
    return this.#llumlet?.isMigrating === true;
  }

  /**
   * Starts the instance and runs it until it ends.
   * @returns why it ended; the caller then calls {@linkcode close}
   */
  run(): Promise<InstanceEnd> {
    this.#start().catch((error) => this.#fail(error));
    return this.#ended.promise;
  }

  /**
   * Stops the instance once its requests have moved away or finished. An instance that does not
   * serve yet, or drains already, stops at once.
   */
  drain(reason: string): void {
    if (!this.#manager.hasRegistered || this.#drain.isUnderWay) this.stop(reason);
    else if (!this.#hasEnded) this.#drain.start();
  }

  /** Another manager leads now, at this address. */
  moveTo(managerAddress: Address): void {
    this.#manager.moveTo(managerAddress);
  }

  /** Ends {@linkcode run} with exit code 0. */
  stop(reason: string): void {
    this.#finish({ exitCode: 0, reason });
  }

  /**
   * Ends the requests that are left, tells their API servers, and frees everything, within a time
   * limit.
   * @returns whether the manager was still connected to hear of it
   */
  async close(): Promise<boolean> {
    this.#drain.stop();
    this.#reporter?.close();
    const timeout = Promise.withResolvers<boolean>();
    const cancel = this.#config.clock.after(
      CLOSE_TIMEOUT_MS,
      () => timeout.resolve(this.#manager.isConnected),
    );
    const wasJoined = await Promise.race([this.#closeParts(), timeout.promise]);
    cancel();
    return wasJoined;
  }

  async #closeParts(): Promise<boolean> {
    await (this.#llumlet ?? this.#backend)?.close(); // a llumlet closes its backend
    await (this.#engine ?? this.#executor)?.close(); // an engine closes its executor
    this.#service.close();
    await this.#listener?.close();
    const wasJoined = this.#manager.isConnected;
    await this.#manager.close();
    return wasJoined;
  }

  /** The first end counts. */
  #finish(end: InstanceEnd): void {
    this.#hasEnded = true;
    this.#ended.resolve(end);
  }

  async #start(): Promise<void> {
    const { bus, managerAddress, instanceId, onStart } = this.#config;
    const { infoIntervalMs, instanceType } = await this.#manager.join();
    if (this.#hasEnded) return;
    const host = this.#config.host ?? this.#manager.localHost;
    const address = serviceAddress(managerAddress, instanceId, host);
    onStart?.({ type: "joined" });
    this.#type = instanceType;
    const executor = await this.#loadExecutor();
    if (this.#hasEnded) return await executor.close();
    this.#executor = executor;
    this.#backend = await this.#config.migration?.openBackend(executor, host) ?? null;
    if (this.#hasEnded) return await this.#backend?.close();
    this.#backend?.failed?.then((reason) => this.#loseMigration(reason));
    const engine = this.#startEngine(executor, infoIntervalMs);
    this.#listener = await bus.listen(address, this.#service.service);
    await this.#manager.register();
    onStart?.({ type: "serving", registration: this.#registration() });
    this.#reporter!.report(engine.takeInfo());
  }

  /** What the manager may ask of this instance. The instance made the connection. */
  #managerService(): Required<Pick<Service, "calls" | "notifications">> {
    return {
      calls: {
        ping: () => ({ data: null }),
        requests: ({ data }) => ({ data: this.#requests(data) }),
        migrate_out: ({ data }, peer) => {
          obey(this.#fence, data, peer);
          return this.#migrateOut(data);
        },
        migration_group: ({ data }, peer) => {
          obey(this.#fence, data, peer);
          return this.#joinGroup(data);
        },
        keep_orders: ({ data }, peer) => {
          obey(this.#fence, data, peer);
          this.#manager.keepOrders(data.orders);
          return { data: null };
        },
        handover: ({ data }, peer) => {
          obey(this.#fence, data, peer);
          this.#manager.expectSuccessor(data.waitMs);
          return { data: null };
        },
      },
      notifications: {
        shutdown: this.#order(() => this.stop("the manager asked for it")),
        stay: this.#order(() => this.#engine?.clearExpectedSteps()),
        keep: this.#order(() => this.#drain.cancel()),
        report_interval: ({ data }) => this.#reporter?.setInterval(data.infoIntervalMs),
      },
    };
  }

  /** A notification whose sender may lead no more: then nothing happens. */
  #order(act: () => void): (message: Message<ManagerDecision>, peer: Peer) => void {
    return ({ data }, peer) => {
      if (isObeyed(this.#fence, data, peer)) act();
    };
  }

  /** A manager that has taken the instance back knows neither its load nor that it drains. */
  #resumeWithManager(): void {
    this.#reporter!.report(this.#engine!.takeInfo());
    if (this.#drain.isUnderWay) this.#drain.tellManager();
  }

  /** The manager plans no more migrations with this instance. Those under way fail. */
  #loseMigration(reason: string): void {
    this.#migrationFailure = reason;
    this.#manager.update(); // before it has registered, the registration will say it
  }

  #loadExecutor(): Promise<Executor> {
    const { options, hostShare, instanceId, clock, loadExecutor } = this.#config;
    const { device } = executorKind(options.device);
    let lastMs = -Infinity;
    let lastPhase = "";
    return loadExecutor({ device, options, hostShare }, (progress) => {
      const isRoutine = progress.phase === lastPhase && progress.doneBytes < progress.totalBytes;
      if (isRoutine && clock.nowMs() - lastMs < PROGRESS_INTERVAL_MS) return;
      lastMs = clock.nowMs();
      lastPhase = progress.phase;
      const data: InstanceProgress = { instanceId, ...progress };
      this.#manager.notify("progress", data);
    });
  }

  #startEngine(executor: Executor, infoIntervalMs: number): Engine {
    const { instanceId, options, clock } = this.#config;
    const sendInfo = (info: InstanceInfo) => this.#manager.notify("info", info);
    const reporter = this.#reporter = new InfoReporter(clock, infoIntervalMs, sendInfo);
    const engine = this.#engine = new Engine({
      config: resolveEngineConfig(
        { instanceId, instanceType: this.#type, maxWaitingRequests: MAX_WAITING_REQUESTS },
        options,
        executor.info,
      ),
      executor,
      clock,
      onOutputs: (outputs) => this.#service.sendOutputs(outputs),
      onInfo: (info) => reporter.report(info),
      isInfoDue: (isIdle) => reporter.isDue(isIdle),
      onFatal: (error) => this.#fail(error),
    });
    this.#llumlet = this.#openLlumlet(executor, engine);
    this.#service.attach(engine, this.#llumlet, () => this.#report());
    return engine;
  }

  #openLlumlet({ info }: Executor, engine: Engine): Llumlet | null {
    const { migration, instanceId, bus, clock } = this.#config;
    const backend = this.#backend;
    if (!migration || !backend) return null;
    return new Llumlet({
      instanceId,
      model: info.model,
      layout: info.layout,
      engine,
      backend,
      bus,
      clock,
      limits: migration.limits,
      crossover: migration.crossover,
      onPathMeasured: migration.onPathMeasured,
      copiesBesideSteps: migration.copiesBesideSteps,
      onMovedIn: (request) => this.#service.expect(request),
      onMovedOut: (requestId) => this.#service.forget(requestId),
    });
  }

  #requests(query: RequestsQuery): RequestsReply {
    return this.#engine?.requests(query) ?? { requests: [], numOmitted: 0 };
  }

  async #joinGroup(group: MigrationGroup): Promise<Message<MigrationGroupReply>> {
    if (!this.#backend?.join) {
      throw new UnavailableError("this instance has no migration backend that uses groups");
    }
    const { secret, generation } = group, newest = this.#group;
    if (newest?.secret === secret && generation < newest.generation) {
      throw new UnavailableError(
        `migration group ${generation} has been replaced by group ${newest.generation}`,
      );
    }
    this.#group = group;
    const failedPeers = await this.#backend.join(group);
    return { data: { failedPeers } };
  }

  async #migrateOut(order: MigrateOutOrder): Promise<Message<MigrationReport>> {
    if (this.#llumlet) return { data: await this.#llumlet.migrateOut(order) };
    throw new UnavailableError("this instance has no migration backend: its requests cannot move");
  }

  /** Valid as {@linkcode #registration}. */
  #report(): ProcessReport {
    const { instanceId, hostName, version = "unknown", model, dtype, maxModelLen } = this
      .#registration();
    const { layout } = this.#executor!.info, { prefillTokenMs } = this.#engine!;
    return {
      process: instanceId,
      hostName,
      version,
      timeMs: Date.now(),
      settings: { model, dtype, maxModelLen },
      cost: {
        bytesPerToken: blockBytes(layout) / layout.blockSize,
        prefillTokensPerSecond: prefillTokenMs === null ? null : 1_000 / prefillTokenMs,
      },
    };
  }

  /** Valid once the model is loaded and the instance listens. */
  #registration(): InstanceRegistration {
    const { info } = this.#executor!;
    const migrationFailure = this.#migrationFailure;
    const backend = migrationFailure === undefined ? this.#backend : null;
    return {
      instanceId: this.#config.instanceId,
      instanceType: this.#type,
      address: this.#listener!.address,
      hostName: this.#config.hostName ?? tcpHost(this.#listener!.address) ?? undefined,
      pid: this.#config.pid,
      processStart: this.#config.processStart,
      version: this.#config.version,
      model: info.model,
      executor: info.description,
      dtype: info.dtype,
      blockSize: info.layout.blockSize,
      totalBlocks: info.numBlocks,
      swapBlocks: info.numSwapBlocks,
      maxModelLen: info.maxModelLen,
      longestStepMs: this.#engine!.longestStepMs,
      migration: backend ? { backend: backend.name, endpoint: backend.endpoint } : undefined,
      migrationFailure,
    };
  }

  /**
   * A connected manager logs the error. The process itself logs only a bug, with its stack, or if
   * it was started by hand: the person who started it may not see the manager's log.
   */
  #fail(error: unknown): void {
    const record = toErrorRecord(error);
    const isReported = this.#manager.isConnected && this.#config.startedBy !== "hand";
    this.#manager.notify("failed", record);
    this.#finish({
      exitCode: isForTheUser(record.kind) ? 2 : 1,
      reason: record.message,
      isReported,
      error: isReported && error instanceof LlumnixError ? undefined : error,
    });
  }
}
