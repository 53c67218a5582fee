import type { Address, Bus, Listener, Message, Peer, Service } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import {
  isForTheUser,
  LlumnixError,
  toErrorRecord,
  UnavailableError,
  UsageError,
} from "../core/errors.ts";
import { untilManagerAnswers } from "../core/manager_wait.ts";
import type { RequestsQuery, RequestsReply } from "../core/protocol/admin.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceInfo, InstanceType } from "../core/protocol/instance_info.ts";
import type {
  InstanceProgress,
  InstanceRegistration,
  JoinReply,
  JoinRequest,
} from "../core/protocol/membership.ts";
import type {
  MigrateOutOrder,
  MigrationGroup,
  MigrationGroupReply,
  MigrationReport,
} from "../core/protocol/migration.ts";
import type { EngineOptions, TransferOptions } from "../core/options.ts";
import type { Executor, ExecutorSpec, OnProgress } from "../executor/executor.ts";
import type { MigrationBackend } from "../kv/transfer/backend.ts";
import { Engine } from "./engine/engine.ts";
import { resolveEngineConfig } from "./engine/engine_config.ts";
import { InfoReporter } from "./engine/info_reporter.ts";
import { serviceAddress } from "./instance_socket.ts";
import { Leave } from "./drain.ts";
import { Llumlet } from "./llumlet/llumlet.ts";
import { InstanceService } from "./instance_service.ts";

/** Requests that may wait in one instance; API servers bound theirs well below. */
const MAX_WAITING_REQUESTS = 10_000;
/** Least time between two progress messages. */
const PROGRESS_INTERVAL_MS = 100;
/** How long the running step may take when the instance stops. */
const CLOSE_TIMEOUT_MS = 2_000;
/** Pause before a lost manager is tried again. */
const REJOIN_INTERVAL_MS = 200;
const DEFAULT_DRAIN_TIMEOUT_MS = 30_000;

export interface InstanceConfig {
  readonly options: EngineOptions;
  readonly instanceId: InstanceId;
  readonly managerAddress: Address;
  /** Instances that share this host. */
  readonly hostShare: number;
  /** Of the process, for people. */
  readonly pid: number;
  /** See {@linkcode InstanceRegistration}. */
  readonly processStart?: string;
  readonly clock: Clock;
  readonly bus: Bus;
  readonly loadExecutor: (spec: ExecutorSpec, onProgress: OnProgress) => Promise<Executor>;
  /** How long a serving instance that lost its manager goes on and tries to join again. */
  readonly rejoinTimeoutMs: number;
  readonly startedBy?: JoinRequest["startedBy"];
  /** How long it waits for a manager to join; default 0: not at all. */
  readonly managerWaitMs?: number;
  readonly onStart?: (event: StartEvent) => void;
  /** How long its requests get to leave or finish when it is asked to leave. */
  readonly drainTimeoutMs?: number;
  /** Absent: requests stay where they are. */
  readonly migration?: InstanceMigration;
}

/** What moves requests to and from other instances. */
export interface InstanceMigration {
  readonly limits: Pick<TransferOptions, "lastStageMaxBlocks" | "maxStages">;
  /** Steps run on a device of their own: copying takes nothing from them. Default false. */
  readonly copiesBesideSteps?: boolean;
  /** Null where the executor's blocks cannot be moved. Closed by the instance. */
  openBackend(
    executor: Executor,
  ): Promise<MigrationBackend | null> | MigrationBackend | null;
}

/** How far an instance is that starts. */
export type StartEvent =
  | { readonly type: "waiting" | "joined" }
  | { readonly type: "serving"; readonly registration: InstanceRegistration };

/** Why an instance ends. */
export interface InstanceEnd {
  /** 0 when asked to stop, 2 for what the user can put right, else 1. */
  readonly exitCode: number;
  readonly reason: string;
  /** The manager was told, and tells the user. */
  readonly isReported?: boolean;
  /** What nobody else reports. */
  readonly error?: unknown;
}

/**
 * One instance, whatever process it is in: joins the manager, loads the model, serves API servers
 * directly. It ends when the manager asks for it or is gone for good, when the executor fails, or at
 * {@linkcode stop}.
 */
export class Instance {
  readonly #config: InstanceConfig;
  readonly #service: InstanceService;
  readonly #leave: Leave;
  /** No two processes of a host have one pid at one time; not random, for simulations repeat. */
  readonly #incarnation: string;
  readonly #ended = Promise.withResolvers<InstanceEnd>();
  #hasEnded = false;
  /** Once; it may have lost the manager since. */
  #hasJoined = false;
  #isServing = false;
  /** The manager knows, or is about to, that it serves. */
  #hasRegistered = false;
  #isRejoining = false;
  #type: InstanceType = "both";
  #manager: Peer | null = null;
  #reporter: InfoReporter | null = null;
  #executor: Executor | null = null;
  #backend: MigrationBackend | null = null;
  /** Why requests stay here from now on. */
  #migrationFailure: string | undefined = undefined;
  /** The newest that it was told of: invitations may come late, or again. */
  #group: MigrationGroup | null = null;
  #engine: Engine | null = null;
  #llumlet: Llumlet | null = null;
  #listener: Listener | null = null;

  constructor(config: InstanceConfig) {
    this.#config = config;
    this.#incarnation = `${config.pid}-${config.clock.nowMs()}`;
    this.#service = new InstanceService(config.clock);
    this.#leave = new Leave({
      clock: config.clock,
      timeoutMs: config.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS,
      isEmpty: () => !this.isMigrating && this.#engine!.isIdle,
      ask: () => this.#askToLeave(),
      setAccepting: (isAccepting) => this.#service.isAccepting = isAccepting,
      onDone: () => this.stop("its requests have left or finished"),
    });
  }

  /** Null until the model is loaded. */
  get engine(): Engine | null {
    return this.#engine;
  }

  /** A request is leaving or coming. */
  get isMigrating(): boolean {
    return this.#llumlet?.isMigrating === true;
  }

  /**
   * Starts it.
   * @returns why it ended; {@linkcode close} is to follow
   */
  run(): Promise<InstanceEnd> {
    this.#start().catch((error) => this.#fail(error));
    return this.#ended.promise;
  }

  /** Stops it when its requests have gone elsewhere; the second time, or when it has none yet, at once. */
  leave(reason: string): void {
    if (!this.#hasRegistered || this.#leave.isUnderWay) this.stop(reason);
    else if (!this.#hasEnded) this.#leave.start();
  }

  stop(reason: string): void {
    this.#finish({ exitCode: 0, reason });
  }

  /**
   * Ends what runs and tells those who wait for it, as far as the time limit allows.
   * @returns whether the manager was there to be told
   */
  async close(): Promise<boolean> {
    this.#leave.stop();
    this.#reporter?.close();
    const timeout = Promise.withResolvers<boolean>();
    const cancel = this.#config.clock.after(
      CLOSE_TIMEOUT_MS,
      () => timeout.resolve(this.#isJoined),
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
    const wasJoined = this.#isJoined;
    await this.#leaveManager();
    return wasJoined;
  }

  async #leaveManager(): Promise<void> {
    const manager = this.#manager;
    this.#manager = null; // its end is no surprise
    await manager?.close();
  }

  get #isJoined(): boolean {
    return this.#manager?.isOpen === true;
  }

  /** The first reason counts. */
  #finish(end: InstanceEnd): void {
    this.#hasEnded = true;
    this.#ended.resolve(end);
  }

  async #start(): Promise<void> {
    const { bus, managerAddress, instanceId } = this.#config;
    const address = serviceAddress(managerAddress, instanceId);
    const { infoIntervalMs, instanceType } = await this.#joinFirst();
    if (this.#hasEnded) return;
    this.#hasJoined = true;
    if (!this.#isJoined) return this.#loseManager();
    this.#config.onStart?.({ type: "joined" });
    this.#type = instanceType;
    const executor = await this.#loadExecutor();
    if (this.#hasEnded) return await executor.close();
    this.#executor = executor;
    this.#backend = await this.#config.migration?.openBackend(executor) ?? null;
    if (this.#hasEnded) return await this.#backend?.close();
    this.#backend?.failed?.then((reason) => this.#loseMigration(reason));
    const engine = this.#startEngine(executor, infoIntervalMs);
    this.#listener = await bus.listen(address, this.#service.service);
    this.#hasRegistered = true;
    await this.#register();
    this.#isServing = true;
    this.#config.onStart?.({ type: "serving", registration: this.#registration() });
    this.#reporter!.report(engine.takeInfo());
  }

  /** @throws {UnavailableError} whatever listens there is no manager that takes instances */
  #joinFirst(): Promise<JoinReply> {
    const { managerAddress: address, managerWaitMs: timeoutMs = 0, clock, onStart } = this.#config;
    const onWait = () => onStart?.({ type: "waiting" });
    const wait = { address, clock, timeoutMs, onWait, isGivenUp: () => this.#hasEnded };
    return untilManagerAnswers(wait, async () => {
      await this.#leaveManager(); // what did not answer the last time
      return await this.#join();
    });
  }

  async #join(): Promise<JoinReply> {
    const { bus, managerAddress, instanceId, startedBy } = this.#config;
    const service: Service = {
      calls: {
        ping: () => ({ data: null }),
        requests: ({ data }) => ({ data: this.#requests(data) }),
        migrate_out: ({ data }) => this.#migrateOut(data),
        migration_group: ({ data }) => this.#joinGroup(data),
      },
      notifications: {
        shutdown: () => this.stop("the manager asked for it"),
        stay: () => this.#engine?.stay(),
        keep: () => this.#leave.stay(),
      },
      onClose: () => this.#manager === manager && this.#loseManager(),
    };
    const manager: Peer = await bus.connect(managerAddress, service);
    this.#manager = manager;
    const { data } = await manager.call("join", {
      data: {
        instanceId,
        incarnation: this.#incarnation,
        isRunning: this.#isServing,
        registration: this.#isServing ? this.#registration() : undefined,
        startedBy,
      } satisfies JoinRequest,
    });
    return data;
  }

  async #register(): Promise<void> {
    await this.#manager!.call("register", { data: this.#registration() });
  }

  /** The manager leaves it out from now on; what is under way fails by itself. */
  #loseMigration(reason: string): void {
    this.#migrationFailure = reason;
    // Else it says so when it registers.
    if (this.#hasRegistered) this.#register().catch(() => {});
  }

  #loseManager(): void {
    if (!this.#hasJoined) return; // whoever joins hears of it
    const mayComeBack = this.#isServing && this.#config.rejoinTimeoutMs > 0;
    if (!mayComeBack) this.#finish({ exitCode: 1, reason: "the manager is gone" });
    else if (!this.#hasEnded && !this.#isRejoining) this.#rejoin();
  }

  /** Serves on meanwhile: requests and tokens do not pass through the manager. */
  async #rejoin(): Promise<void> {
    const { clock, rejoinTimeoutMs } = this.#config;
    const deadlineMs = clock.nowMs() + rejoinTimeoutMs;
    this.#isRejoining = true;
    while (!this.#hasEnded) {
      // Its end may have come together with its answer, while this was still rejoining.
      if (await this.#tryRejoin() && this.#isJoined) break;
      if (clock.nowMs() >= deadlineMs) {
        const reason = `the manager is gone, and did not come back in ${rejoinTimeoutMs} ms`;
        this.#finish({ exitCode: 1, reason });
      }
      await sleep(clock, REJOIN_INTERVAL_MS);
    }
    this.#isRejoining = false;
  }

  async #tryRejoin(): Promise<boolean> {
    try {
      await this.#join();
      await this.#register();
    } catch (error) {
      await this.#leaveManager();
      const isGivenUp = error instanceof LlumnixError && error.kind === "not_found";
      if (isGivenUp) this.#finish({ exitCode: 1, reason: error.message });
      return false;
    }
    this.#reporter!.report(this.#engine!.takeInfo());
    if (this.#leave.isUnderWay) this.#leave.ask();
    return true;
  }

  async #askToLeave(): Promise<boolean> {
    try {
      const { data } = await this.#manager!.call("drain", { data: null });
      return data.mayDrain;
    } catch {
      return true; // there is nobody to say no
    }
  }

  #loadExecutor(): Promise<Executor> {
    const { options, hostShare, instanceId, clock, loadExecutor } = this.#config;
    if (options.device === "cuda") throw new UsageError("--device cuda is not available yet");
    const kind = options.device === "null" || options.device === "sim" ? options.device : "cpu";
    let lastMs = -Infinity;
    let lastPhase = "";
    return loadExecutor({ kind, options, hostShare }, (progress) => {
      const isRoutine = progress.phase === lastPhase && progress.doneBytes < progress.totalBytes;
      if (isRoutine && clock.nowMs() - lastMs < PROGRESS_INTERVAL_MS) return;
      lastMs = clock.nowMs();
      lastPhase = progress.phase;
      const data: InstanceProgress = { instanceId, ...progress };
      this.#manager?.notify("progress", { data });
    });
  }

  #startEngine(executor: Executor, infoIntervalMs: number): Engine {
    const { instanceId, options, clock } = this.#config;
    const sendInfo = (info: InstanceInfo) => this.#manager?.notify("info", { data: info });
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
    this.#service.attach(engine, this.#llumlet);
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
      copiesBesideSteps: migration.copiesBesideSteps,
      onArrive: (request) => this.#service.expect(request),
      onLeave: (requestId) => this.#service.forget(requestId),
    });
  }

  #requests(query: RequestsQuery): RequestsReply {
    return this.#engine?.requests(query) ?? { requests: [], numOmitted: 0 };
  }

  async #joinGroup(group: MigrationGroup): Promise<Message<MigrationGroupReply>> {
    if (!this.#backend?.join) throw new UnavailableError("no request moves in a group here");
    const { secret, generation } = group, newest = this.#group;
    if (newest?.secret === secret && generation < newest.generation) {
      throw new UnavailableError(`group ${generation} has been replaced by ${newest.generation}`);
    }
    this.#group = group;
    const failedPeers = await this.#backend.join(group);
    return { data: { failedPeers } };
  }

  /** The manager's orders come over the connection that this instance made to it. */
  async #migrateOut(order: MigrateOutOrder): Promise<Message<MigrationReport>> {
    if (this.#llumlet) return { data: await this.#llumlet.migrateOut(order) };
    throw new UnavailableError("no request moves from this instance");
  }

  /** Once it is loaded and listens. */
  #registration(): InstanceRegistration {
    const { info } = this.#executor!;
    const migrationFailure = this.#migrationFailure;
    const backend = migrationFailure === undefined ? this.#backend : null;
    return {
      instanceId: this.#config.instanceId,
      instanceType: this.#type,
      address: this.#listener!.address,
      pid: this.#config.pid,
      processStart: this.#config.processStart,
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
   * The manager reports a deliberate error; only a bug is worth a line, and a stack, of its own. Whoever
   * started the process by hand may not see what the manager says.
   */
  #fail(error: unknown): void {
    const record = toErrorRecord(error);
    const isReported = this.#isJoined && this.#config.startedBy !== "hand";
    this.#manager?.notify("failed", { data: record });
    this.#finish({
      exitCode: isForTheUser(record.kind) ? 2 : 1,
      reason: record.message,
      isReported,
      error: isReported && error instanceof LlumnixError ? undefined : error,
    });
  }
}
