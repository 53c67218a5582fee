import type { Address, Bus, Peer, Service } from "../bus/bus.ts";
import { parseAddress } from "../bus/address.ts";
import { isObeyed, obey } from "../bus/obey.ts";
import { type Clock, sleep } from "../core/clock.ts";
import {
  ConflictError,
  isForTheUser,
  LlumnixError,
  toErrorRecord,
  UnavailableError,
} from "../core/errors.ts";
import type { LeaderFence } from "../core/leader_fence.ts";
import type { Log } from "../core/log.ts";
import type { AgentJoin, AgentSignal, AgentStart, AgentStarted } from "../core/protocol/agents.ts";
import type { PathOrder, PathSpeed, ProcessReport } from "../core/protocol/examination.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { ManagerDecision } from "../core/protocol/leadership.ts";
import { isNewer, type KeepOrders, type StandingOrders } from "../core/protocol/standing_orders.ts";
import type { InstanceVersion } from "../core/protocol/upgrade.ts";
import { fullVersion } from "../core/version.ts";
import { checkInstanceId } from "../instance/instance_socket.ts";
import type { AdoptedInstance, ExitStatus, InstanceLauncher } from "../manager/fleet/launcher.ts";
import type { InstanceRecords, RecordedInstance } from "./instance_records.ts";
import { pathAddress, PathProbe } from "./path_probe.ts";

/** Pause before the agent connects again; it doubles with each attempt that fails, to the second value. */
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 2_000;
const CONNECT_TIMEOUT_MS = 2_000;
/** How often the agent asks whether the manager is there, and how long it waits for the answer. */
const PING_INTERVAL_MS = 5_000;
/** Interval of checks whether an instance that a former agent started has ended. */
const ADOPTED_POLL_MS = 200;
/** Time for the manager to take note that the agent stops. */
const LEAVE_TIMEOUT_MS = 1_000;
/** Time for the manager to tell the versions of instances. */
const VERSIONS_TIMEOUT_MS = 2_000;
/** Pause before the agent asks another manager to replace an instance. */
const REPLACE_RETRY_MS = 200;
/** How long the agent looks for a manager that replaces an instance. */
const REPLACE_WAIT_MS = 60_000;

export interface HostAgentConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly log: Log;
  /** Refuses orders of managers whose leadership is over. */
  readonly fence: LeaderFence;
  /** What the agent says of its host; the rest it knows by itself. */
  readonly facts: Omit<AgentJoin, "address" | "number" | "instances" | "starting" | "orders">;
  readonly launcher: Pick<InstanceLauncher, "launch">;
  /** Outlive the agent: the next one of this host finds the instances there. */
  readonly records: InstanceRecords;
  /** The start of a process of this host, for the records; undefined: it is not known. */
  readonly startOf: (pid: number) => string | undefined;
  /** A process that a former agent started; null: it has ended. */
  readonly find: (process: RecordedInstance) => AdoptedInstance | null;
  /** `--advertise-host`; absent or null: the address that this host has on the way to the manager. */
  readonly advertiseHost?: string | null;
}

/** An instance that runs here, or starts. */
interface Running {
  /** Null while it starts. */
  pid: number | null;
  processStart?: string;
  /** Resolves with its pid; rejects if it could not be started. */
  started: Promise<number>;
  stop(signal: "SIGTERM" | "SIGKILL"): void;
}

/**
 * Starts and ends instances on this host, on the word of the manager that leads. Instances are connected to
 * the manager by themselves, so they go on when this process has lost the manager, and when it has ended.
 */
export class HostAgent {
  readonly #config: HostAgentConfig;
  readonly #instances = new Map<InstanceId, Running>();
  /** Those that a former agent started. */
  readonly #adopted = new Map<InstanceId, AdoptedInstance>();
  readonly #joined = Promise.withResolvers<void>();
  readonly #probe: PathProbe;
  /** Where the manager is; null: not known yet. */
  #address: Address | null = null;
  #peer: Peer | null = null;
  /** The last manager that has taken the host. */
  #joinedPeer: Peer | null = null;
  /** Why the manager refuses the host; null: it does not. */
  #refusal: string | null = null;
  /** Why no manager could be joined lately, as the log says it; null: nothing was said. */
  #warning: string | null = null;
  /** A manager has taken the host, now or before. */
  #hasJoined = false;
  #isConnecting = false;
  #isStopping = false;
  #isClosed = false;
  /** The records are another agent's. */
  #hasLeft = false;
  #numJoins = 0;
  /** For the next manager; undefined: none has sent any. */
  #orders: StandingOrders | undefined = undefined;
  /** Resolves when the last instance has ended. */
  #empty = Promise.withResolvers<void>();
  #cancelRetry: () => void = () => {};
  #cancelPing: () => void = () => {};
  #cancelPoll: () => void = () => {};

  /** Takes the instances of a former agent of this host. */
  constructor(config: HostAgentConfig) {
    this.#config = config;
    this.#probe = new PathProbe(config);
    this.#joined.promise.catch(() => {}); // only the command waits for it
    this.#adoptRecorded();
  }

  /** The instances of a former agent of this host that still run. */
  get adoptedIds(): InstanceId[] {
    return [...this.#adopted.keys()];
  }

  /** The instances that run here. */
  get instanceIds(): InstanceId[] {
    return [...this.#instances.keys()];
  }

  /** The manager that has taken the host, while it is connected. */
  get #manager(): Peer | null {
    return this.#peer === this.#joinedPeer ? this.#peer : null;
  }

  /** Resolves when a manager has taken the host. Rejects with a UsageError if the first one refuses it. */
  get joined(): Promise<void> {
    return this.#joined.promise;
  }

  /** The manager that leads is at this address: connects, and again whenever the connection has ended. */
  moveTo(address: Address): void {
    if (address === this.#address || this.#isClosed) return;
    if (this.#address === null) this.#ping();
    this.#address = address;
    const peer = this.#peer;
    this.#peer = null;
    peer?.close();
    if (!this.#isConnecting) this.#connectAfter(0, FIRST_RETRY_MS);
  }

  /**
   * Takes the host out of the service: its instances give their requests away, or finish them, and end.
   * @param limitMs after which they are killed
   */
  async stop(limitMs: number): Promise<void> {
    this.#isStopping = true;
    const { clock } = this.#config;
    await this.#join().catch(() => {}); // no slots: what goes is not to be started here again
    for (const { stop } of this.#instances.values()) stop("SIGTERM");
    const cancel = clock.after(limitMs, () => this.kill());
    if (this.#instances.size > 0) await this.#empty.promise;
    cancel();
    await this.close();
  }

  /** Ends the processes of all instances at once. */
  kill(): void {
    for (const { stop } of this.#instances.values()) stop("SIGKILL");
  }

  /** The instances of this host, and the versions that they run, as far as a manager tells. */
  async versions(): Promise<InstanceVersion[]> {
    const options = { timeoutMs: VERSIONS_TIMEOUT_MS };
    const answer = await this.#manager?.call("agent_versions", { data: null }, options).catch(
      () => {},
    );
    const known = new Map(
      answer?.data.instances.map(({ instanceId, version }) => [instanceId, version]),
    );
    return this.instanceIds.map((instanceId) => ({
      instanceId,
      version: known.get(instanceId) ?? null,
    }));
  }

  /**
   * Has the manager that leads replace an instance of this host by one of this agent's executable. If another
   * manager leads meanwhile, that one is asked.
   * @throws {LlumnixError} the instance was not replaced, and serves on
   */
  async replace(instanceId: InstanceId): Promise<void> {
    const { clock } = this.#config;
    let failure: unknown = new UnavailableError("no manager leads");
    let waitsSinceMs = clock.nowMs();
    while (this.#instances.has(instanceId)) {
      if (this.#isClosed || this.#isStopping) throw new UnavailableError("the agent is stopping");
      const beganMs = clock.nowMs();
      try {
        if (this.#manager !== null) return await askToReplace(this.#manager, instanceId);
      } catch (error) {
        if (toErrorRecord(error).kind !== "unavailable") throw error;
        failure = error; // the manager has gone, or leads no more
        if (clock.nowMs() - beganMs > REPLACE_RETRY_MS) waitsSinceMs = clock.nowMs(); // it was at it
      }
      if (clock.nowMs() - waitsSinceMs >= REPLACE_WAIT_MS) throw failure;
      await sleep(clock, REPLACE_RETRY_MS);
    }
  }

  /** Leaves the manager; the instances go on, and another agent of this host may take them. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelRetry();
    this.#cancelPing();
    this.#cancelPoll();
    const peer = this.#peer;
    this.#peer = null;
    const starts = [...this.#instances.values()].map(({ started }) => started);
    await Promise.all([peer?.close(), this.#probe.close(), Promise.allSettled(starts)]);
    if (this.#instances.size === 0 && !this.#hasLeft) this.#config.records.clear();
    this.#hasLeft = true;
  }

  #connectAfter(delayMs: number, nextMs: number): void {
    this.#cancelRetry();
    if (this.#isClosed) return;
    this.#cancelRetry = this.#config.clock.after(delayMs, () => this.#connect(nextMs));
  }

  async #connect(retryMs: number): Promise<void> {
    const address = this.#address!;
    let peer: Peer | null = null;
    this.#isConnecting = true;
    try {
      const options = { timeoutMs: CONNECT_TIMEOUT_MS };
      peer = this.#peer = await this.#config.bus.connect(address, this.#service(), options);
      await this.#join();
      const isLate = !peer.isOpen || this.#isClosed || address !== this.#address;
      if (isLate) throw new UnavailableError("the connection has ended");
      this.#config.log.info(`joined the manager at ${address}`);
      this.#refusal = null;
      this.#warning = null;
      this.#hasJoined = true;
      this.#joinedPeer = peer;
      this.#joined.resolve();
    } catch (error) {
      if (this.#peer === peer) this.#peer = null;
      await peer?.close();
      this.#note(error);
      if (address !== this.#address) retryMs = 0;
      if (retryMs === MAX_RETRY_MS) this.#warn(address, error);
      this.#connectAfter(retryMs, Math.min(Math.max(2 * retryMs, FIRST_RETRY_MS), MAX_RETRY_MS));
    } finally {
      this.#isConnecting = false;
    }
  }

  /** Attempts have failed for some seconds: the operator hears why, once for each reason. */
  #warn(address: Address, error: unknown): void {
    const { kind, message } = toErrorRecord(error);
    if (isForTheUser(kind) || message === this.#warning) return;
    this.#warning = message;
    this.#config.log.warn(`cannot join the manager at ${address}, and tries again: ${message}`);
  }

  /** A refusal of the first manager is the operator's to mend; later ones may end by themselves. */
  #note(error: unknown): void {
    const { kind, message } = toErrorRecord(error);
    if (!isForTheUser(kind) || message === this.#refusal) return;
    this.#refusal = message;
    this.#joined.reject(error);
    if (this.#hasJoined) this.#config.log.error(`the manager refuses this host: ${message}`);
  }

  /** Tells the manager which instances run here, and which orders of earlier managers still hold. */
  async #join(): Promise<void> {
    const peer = this.#peer, { facts, fence } = this.#config;
    if (peer === null) throw new UnavailableError("there is no manager");
    const join: AgentJoin = {
      ...facts,
      ...(this.#isStopping ? { slots: 0, initialInstances: 0 } : {}),
      address: peer.localHost ?? peer.remote,
      number: ++this.#numJoins,
      instances: [...this.#instances].flatMap(([instanceId, { pid }]) =>
        pid === null ? [] : [{ instanceId, pid }]
      ),
      starting: [...this.#instances].flatMap(([instanceId, { pid }]) =>
        pid === null ? [instanceId] : []
      ),
      orders: this.#orders,
    };
    const options = { timeoutMs: this.#isStopping ? LEAVE_TIMEOUT_MS : undefined };
    const { data } = await peer.call("agent_join", { data: join }, options);
    obey(fence, data, peer);
  }

  #service(): Service {
    return {
      calls: {
        ping: () => ({ data: null }),
        agent_start: async ({ data }, peer) => ({ data: await this.#start(data, peer) }),
        keep_orders: ({ data }, peer) => {
          this.#keepOrders(data, peer);
          return { data: null };
        },
        examine: () => ({ data: this.#report() }),
        path_receive: async ({ data }, peer) => ({ data: await this.#receive(data, peer) }),
        path_send: async ({ data }, peer) => ({ data: await this.#send(data, peer) }),
      },
      notifications: { agent_signal: ({ data }, peer) => this.#signal(data, peer) },
      onClose: (peer) => {
        if (this.#peer !== peer) return;
        this.#peer = null;
        if (this.#isConnecting || this.#isClosed) return;
        const running = this.#instances.size;
        this.#config.log.warn(`lost the manager: ${running} instances of this host go on`);
        this.#connectAfter(FIRST_RETRY_MS, 2 * FIRST_RETRY_MS);
      },
    };
  }

  /**
   * Starts an instance, or answers for the one of that name that runs or starts already.
   * @throws {SupersededError} another manager leads
   * @throws {ConflictError} the host has no room, or the agent is stopping
   */
  async #start(order: AgentStart, peer: Peer): Promise<AgentStarted> {
    const { fence, facts: { host, slots } } = this.#config;
    const { instanceId, managerAddress, replaces } = order;
    obey(fence, order, peer);
    checkInstanceId(instanceId);
    parseAddress(managerAddress);
    if (peer !== this.#peer) {
      // When the agent joined again, it told the manager what runs here. The manager has dropped this order since.
      throw new ConflictError(
        `host ${host} has joined again since it was told to start ${instanceId}`,
      );
    }
    const known = this.#instances.get(instanceId);
    if (known !== undefined) return { pid: await known.started };
    if (this.#isStopping) throw new ConflictError(`host ${host} is leaving the service`);
    const isBesideOld = replaces !== undefined && this.#instances.has(replaces);
    if (this.#instances.size >= slots + (isBesideOld ? 1 : 0)) {
      const taken = this.instanceIds.join(", ");
      throw new ConflictError(
        `host ${host} has no room for ${instanceId}: it has ${slots} slots (--host-slots), taken by ${taken}`,
      );
    }
    let signalled: "SIGTERM" | "SIGKILL" | null = null;
    const running: Running = {
      pid: null,
      started: Promise.resolve(0), // below
      stop: (signal) => signalled = signal,
    };
    this.#instances.set(instanceId, running);
    running.started = this.#launch(order, running, peer);
    const pid = await running.started;
    if (signalled !== null) running.stop(signalled);
    else if (this.#isStopping) running.stop("SIGTERM");
    return { pid };
  }

  async #launch(
    { instanceId, managerAddress, numBlocks }: AgentStart,
    running: Running,
    peer: Peer,
  ): Promise<number> {
    const { launcher, startOf, log } = this.#config;
    try {
      const order = { instanceId, managerAddress, numBlocks, startedBy: "manager" } as const;
      const launched = await launcher.launch(order);
      running.pid = launched.pid;
      running.processStart = startOf(launched.pid);
      running.stop = (signal) => launched.stop(signal);
      launched.exited.then((status) => this.#noteEnd(instanceId, status));
    } catch (error) {
      this.#forget(instanceId);
      // The manager that gets no answer has been told that the start is under way.
      if (peer !== this.#peer) this.#noteExit(instanceId, { code: null, signal: null });
      throw error;
    }
    this.#record();
    if (peer !== this.#peer) this.#join().catch(() => {}); // the next join says it
    log.info(`starting ${instanceId}`, { pid: running.pid });
    return running.pid;
  }

  #keepOrders(decision: KeepOrders, peer: Peer): void {
    obey(this.#config.fence, decision, peer);
    if (isNewer(decision.orders, this.#orders)) this.#orders = decision.orders;
  }

  #report(): ProcessReport {
    const { host, settings } = this.#config.facts;
    const version = fullVersion(), timeMs = Date.now();
    return { process: host, hostName: host, version, timeMs, settings };
  }

  /** @throws {SupersededError} another manager leads */
  async #receive(order: ManagerDecision, peer: Peer): Promise<{ readonly address: Address }> {
    const { fence, advertiseHost, facts: { host } } = this.#config;
    obey(fence, order, peer);
    const address = pathAddress(this.#address!, host, advertiseHost ?? peer.localHost);
    return { address: await this.#probe.receive(address) };
  }

  /** @throws {SupersededError} another manager leads */
  async #send(order: PathOrder, peer: Peer): Promise<PathSpeed> {
    obey(this.#config.fence, order, peer);
    parseAddress(order.address);
    return await this.#probe.send(order.address);
  }

  #signal(order: AgentSignal, peer: Peer): void {
    if (!isObeyed(this.#config.fence, order, peer)) return;
    this.#instances.get(order.instanceId)?.stop(order.signal);
  }

  #noteEnd(instanceId: InstanceId, { code, signal }: ExitStatus): void {
    if (!this.#instances.has(instanceId)) return;
    this.#forget(instanceId);
    this.#record();
    this.#config.log.info(`${instanceId} has ended`, { code, signal });
    this.#noteExit(instanceId, { code, signal });
  }

  #noteExit(instanceId: InstanceId, { code, signal }: ExitStatus): void {
    this.#peer?.notify("agent_exited", { data: { instanceId, code, signal } });
  }

  #forget(instanceId: InstanceId): void {
    this.#instances.delete(instanceId);
    if (this.#instances.size > 0) return;
    this.#empty.resolve();
    this.#empty = Promise.withResolvers();
  }

  #record(): void {
    if (this.#hasLeft) return;
    const instances = [...this.#instances].flatMap(([instanceId, { pid, processStart }]) =>
      pid === null || processStart === undefined ? [] : [{ instanceId, pid, processStart }]
    );
    try {
      this.#config.records.write(instances);
    } catch (error) {
      this.#config.log.warn("an agent started after this one will not find the instances", {
        error,
      });
    }
  }

  #adoptRecorded(): void {
    for (const record of this.#config.records.read()) {
      const found = this.#config.find(record);
      if (found === null) continue;
      const { instanceId, pid, processStart } = record;
      this.#adopted.set(instanceId, found);
      const stop = (signal: "SIGTERM" | "SIGKILL") => found.stop(signal);
      this.#instances.set(instanceId, { pid, processStart, stop, started: Promise.resolve(pid) });
      this.#config.log.info(`${instanceId} runs here already`, { pid });
    }
    this.#record();
    if (this.#adopted.size > 0) this.#poll();
  }

  #poll(): void {
    this.#cancelPoll = this.#config.clock.after(ADOPTED_POLL_MS, () => {
      for (const [instanceId, process] of this.#adopted) {
        if (!process.hasEnded()) continue;
        this.#adopted.delete(instanceId);
        this.#noteEnd(instanceId, { code: null, signal: null });
      }
      if (this.#adopted.size > 0) this.#poll();
    });
  }

  /** A manager whose host has gone closes no connection. */
  #ping(): void {
    const { clock } = this.#config;
    this.#cancelPing = clock.after(PING_INTERVAL_MS, async () => {
      const peer = this.#peer;
      const options = { timeoutMs: PING_INTERVAL_MS };
      try {
        await peer?.call("ping", { data: null }, options);
      } catch (error) {
        if (error instanceof LlumnixError) await peer?.close();
      }
      if (!this.#isClosed) this.#ping();
    });
  }
}

/**
 * A turn of its own, a drain and a load may take any time: the end of the connection ends the call.
 * @throws {ConflictError} the manager is of an older release
 */
async function askToReplace(manager: Peer, instanceId: InstanceId): Promise<void> {
  try {
    await manager.call("agent_replace", { data: { instanceId } }, { timeoutMs: Infinity });
  } catch (error) {
    if (toErrorRecord(error).kind !== "not_found") throw error;
    throw new ConflictError(
      `the manager at ${manager.remote} is of an older release, which replaces no instance for an agent: ` +
        "upgrade that host first",
    );
  }
}
