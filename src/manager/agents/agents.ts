import type { CallHandler, NotifyHandler, Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import {
  ConflictError,
  MessageError,
  OverloadedError,
  toErrorRecord,
  UnavailableError,
  UsageError,
} from "../../core/errors.ts";
import type {
  AgentExited,
  AgentJoin,
  AgentReplace,
  AgentVersions,
} from "../../core/protocol/agents.ts";
import { type HostRefusal, MAX_REFUSALS } from "../../core/protocol/examination.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { ManagerDecision } from "../../core/protocol/leadership.ts";
import type { InstanceRegistration, ServedSettings } from "../../core/protocol/membership.ts";
import type { StandingOrders } from "../../core/protocol/standing_orders.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import type { Authority } from "../authority.ts";
import type {
  AdoptedInstance,
  InstanceLauncher,
  InstanceProcess,
  LaunchedInstance,
  LaunchRequest,
} from "../fleet/launcher.ts";
import type { ManagerEvent } from "../manager_event.ts";
import { AgentHost, type HostedProcess, unknownEnd } from "./agent_host.ts";
import { chooseHost, describeNoRoom, freeSlots } from "./placement.ts";

/** Hosts that are remembered; more agents are refused. */
export const MAX_HOSTS = 1_024;
const DEFAULT_LOST_HOST_MS = 600_000;
/** A refusal that is older is of no interest. */
const REFUSAL_MS = 600_000;
/** Pings of an agent in the time after which a silent one is given up. */
const PINGS_PER_TIMEOUT = 4;

export interface AgentsConfig {
  readonly clock: Clock;
  readonly authority: Authority;
  /** What all instances serve; absent: whatever the first one serves. */
  readonly settings?: ServedSettings;
  /** An agent that is silent for this long is given up, and so is an instance that has not joined. */
  readonly timeoutMs: number;
  /** A host whose agent is away for so long is lost for good, unless instances serve there. */
  readonly lostHostMs?: number;
  /** Whether the manager knows an instance. */
  readonly knows: (instanceId: InstanceId) => boolean;
  /** An operator drains the host: nothing is started there. */
  readonly isDrained: (host: string) => boolean;
  readonly onEvent: (event: ManagerEvent) => void;
  /** An agent has joined, with what earlier managers have ordered. */
  readonly onJoin: (orders: StandingOrders | undefined, peer: Peer) => void;
  /** Room for instances has come or gone, or {@linkcode Agents.initialInstances} has changed; with `isNew`, a host has joined. */
  readonly onRoom: (isNew: boolean) => void;
  /** See `InstanceKeeper.replace`. */
  readonly replace: (instanceId: InstanceId, isWanted: () => boolean) => Promise<void>;
  /** The version that an instance runs; null: not known. */
  readonly versionOf: (instanceId: InstanceId) => string | null;
}

interface Refusal extends Omit<HostRefusal, "agoMs"> {
  readonly atMs: number;
}

/**
 * The hosts of a cluster whose agents start instances: a launcher that chooses the host. The agents tell
 * which processes run, so that a manager that takes over starts none twice.
 */
export class Agents implements InstanceLauncher {
  readonly #config: AgentsConfig;
  readonly #hosts = new Map<string, AgentHost>();
  readonly #hostOfPeer = new Map<Peer, AgentHost>();
  /** The latest last. */
  #refusals: readonly Refusal[] = [];
  #cancelPings: () => void = () => {};
  #toldInstances = 0;
  #isStopped = false;
  /** Where an instance is being replaced. */
  #preferred: AgentHost | null = null;

  readonly calls: {
    readonly agent_join: CallHandler<"agent_join">;
    readonly agent_replace: CallHandler<"agent_replace">;
    readonly agent_versions: CallHandler<"agent_versions">;
  } = {
    agent_join: ({ data }, peer) => {
      try {
        return { data: this.#join(data, peer) };
      } catch (error) {
        if (error instanceof UsageError) this.#noteRefusal(data, error.message);
        throw error;
      }
    },
    agent_replace: async ({ data }, peer) => {
      await this.#replace(data, peer);
      return { data: null };
    },
    agent_versions: (_, peer) => ({ data: this.#versions(peer) }),
  };

  readonly notifications: { readonly agent_exited: NotifyHandler<"agent_exited"> } = {
    agent_exited: ({ data }, peer) => this.#exited(data, peer),
  };

  constructor(config: AgentsConfig) {
    this.#config = config;
  }

  start(): void {
    const { clock, timeoutMs } = this.#config;
    this.#cancelPings = clock.after(timeoutMs / PINGS_PER_TIMEOUT, () => {
      this.start();
      for (const host of this.#hosts.values()) {
        this.#ping(host);
        if (clock.nowMs() >= host.orphansDueMs) this.#killOrphans(host);
      }
      if (this.initialInstances !== this.#toldInstances) this.#noteRoom(false); // a host is lost for good
    });
  }

  /** Starts under way have failed, as far as this manager is concerned. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelPings();
    for (const { processes } of this.#hosts.values()) {
      for (const process of processes.values()) if (process.pid === null) process.end(unknownEnd);
    }
  }

  /** Instances that could be started now. */
  get room(): number {
    return this.#open.reduce((sum, host) => sum + freeSlots(host), 0);
  }

  /**
   * How many instances the hosts bring to the service: the sum of what each wants at first. A host that is
   * lost for good brings none.
   */
  get initialInstances(): number {
    return [...this.#hosts.values()].filter((host) => !this.#isLost(host))
      .reduce((sum, { facts }) => sum + facts.initialInstances, 0);
  }

  get numUnjoined(): number {
    let count = 0;
    for (const { processes } of this.#hosts.values()) {
      for (const [instanceId, { orderedOver, isUnwanted }] of processes) {
        if (orderedOver === null && !isUnwanted && !this.#config.knows(instanceId)) count++;
      }
    }
    return count;
  }

  has(instanceId: InstanceId): boolean {
    return this.#find(instanceId)?.processes.get(instanceId)?.isUnwanted === false;
  }

  /** Hosts that have joined, by name; those whose agents are away too. */
  get all(): readonly AgentHost[] {
    return [...this.#hosts.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  }

  /** Hosts that were refused in the last ten minutes, for what only their operators can put right. */
  get refusals(): readonly HostRefusal[] {
    const nowMs = this.#config.clock.nowMs();
    return this.#refusals.map(({ atMs, ...refusal }) => ({ ...refusal, agoMs: nowMs - atMs }))
      .filter(({ agoMs }) => agoMs < REFUSAL_MS);
  }

  /** Hosts whose agents are there. */
  get names(): string[] {
    return this.#present.map(({ name }) => name);
  }

  /** The host on which an instance runs; null: none of the agents has it. */
  hostOf(instanceId: InstanceId): string | null {
    return this.#find(instanceId)?.name ?? null;
  }

  /** @throws {UnavailableError} no host has room, or another manager leads; or as the agent says */
  async launch(request: LaunchRequest): Promise<LaunchedInstance> {
    const { instanceId, managerAddress, replaces } = request;
    const host = this.#hostBeside(replaces) ?? chooseHost(this.#open, this.#preferred);
    if (host === null) throw new UnavailableError(this.#noRoom());
    const decision = this.#config.authority.demand();
    const peer = host.peer!;
    const process = host.take(instanceId);
    process.orderedOver = peer;
    try {
      const { numBlocks } = host;
      const data = { ...decision, instanceId, managerAddress, numBlocks, replaces };
      process.noteStarted((await peer.call("agent_start", { data })).data.pid);
    } catch (error) {
      if (toErrorRecord(error).kind === "unavailable") {
        await this.#untilTold(host, instanceId, process);
      } else {
        host.end(instanceId, unknownEnd);
        host.noteFailure();
        throw error;
      }
    }
    return {
      pid: process.pid!,
      host: host.name,
      exited: process.exited,
      stop: (signal) => this.#stop(instanceId, signal),
    };
  }

  /**
   * The answer to a start is lost, and perhaps the order. The agent says which when it joins again.
   * @throws {UnavailableError} it did not, or the instance does not run
   */
  async #untilTold(host: AgentHost, instanceId: InstanceId, process: HostedProcess): Promise<void> {
    const { clock, timeoutMs } = this.#config;
    process.orderedOver!.close(); // an agent that is only silent joins again
    const cancel = clock.after(timeoutMs, () => host.end(instanceId, unknownEnd));
    try {
      await process.started;
    } catch {
      throw new UnavailableError(
        `host ${host.name} did not confirm the start of ${instanceId}: its connection has ended`,
      );
    } finally {
      cancel();
    }
  }

  preferHostOf(instanceId: InstanceId | null): void {
    this.#preferred = instanceId === null ? null : this.#find(instanceId);
  }

  /** Null: no agent that is there, or was, has such a process. */
  adopt({ instanceId, pid }: InstanceProcess): AdoptedInstance | null {
    const process = this.#find(instanceId)?.processes.get(instanceId);
    if (process?.pid !== pid) return null;
    return {
      hasEnded: () => process.hasEnded,
      stop: (signal) => this.#stop(instanceId, signal),
    };
  }

  noteServing({ instanceId, totalBlocks }: InstanceRegistration): void {
    this.#find(instanceId)?.noteServing(totalBlocks);
  }

  /** A connection has ended. */
  closed(peer: Peer): void {
    const host = this.#hostOfPeer.get(peer);
    this.#hostOfPeer.delete(peer);
    if (host?.peer !== peer) return;
    host.leave();
    this.#config.onEvent({ type: "host_left", host: host.name, hasStopped: host.slots === 0 });
    this.#noteRoom(false);
  }

  #noteRoom(isNew: boolean): void {
    this.#toldInstances = this.initialInstances;
    this.#config.onRoom(isNew);
  }

  /** Connections to the agents that are there. */
  get peers(): Peer[] {
    return this.#present.map(({ peer }) => peer!);
  }

  get #present(): AgentHost[] {
    return [...this.#hosts.values()].filter(({ peer }) => peer !== null);
  }

  /** Hosts that may get instances. */
  get #open(): AgentHost[] {
    return this.#present.filter(({ name }) => !this.#config.isDrained(name));
  }

  /** Where the instance runs whose place a new one takes: such a host may have one more for a while. */
  #hostBeside(replaced: InstanceId | undefined): AgentHost | null {
    const host = replaced === undefined ? null : this.#find(replaced);
    return host !== null && this.#open.includes(host) && host.instances <= host.slots ? host : null;
  }

  #find(instanceId: InstanceId): AgentHost | null {
    for (const host of this.#hosts.values()) if (host.processes.has(instanceId)) return host;
    return null;
  }

  #noRoom(): string {
    const all = [...this.#hosts.values()];
    const absent = all.filter(({ peer }) => peer === null).map(({ name }) => name);
    const drained = this.#present.map(({ name }) => name).filter(this.#config.isDrained);
    return describeNoRoom(this.#open, absent, drained);
  }

  #stop(instanceId: InstanceId, signal: "SIGTERM" | "SIGKILL"): void {
    const host = this.#find(instanceId);
    const process = host?.processes.get(instanceId);
    if (!host || !process) return;
    const decision = this.#config.authority.stamp;
    process.isUnwanted = true;
    if (host.peer !== null && decision !== null) {
      host.peer.notify("agent_signal", { data: { ...decision, instanceId, signal } });
    } else if (signal === "SIGKILL") host.end(instanceId, unknownEnd); // out of reach: nobody waits for it
  }

  /**
   * @throws {UsageError} another host has the name, or the host would serve something else
   * @throws {OverloadedError} there are too many hosts
   * @throws {UnavailableError} another manager leads
   */
  #join(facts: AgentJoin, peer: Peer): ManagerDecision {
    const decision = this.#config.authority.demand();
    this.#checkSettings(facts);
    const known = this.#hosts.get(facts.host);
    const before = this.#hostOfPeer.get(peer);
    if (before !== undefined && before !== known) {
      throw new MessageError(`field host: expected ${before.name}, which has joined`);
    }
    // What has started since is not in it.
    if (known?.peer === peer && isOlder(facts, known.facts)) return decision;
    if (known !== undefined) this.#checkName(known, facts, peer);
    else if (this.#hosts.size >= MAX_HOSTS) this.#forgetOne();
    const host = known ?? new AgentHost(facts, () => this.#config.clock.nowMs());
    const { peer: replaced, facts: { pid: replacedPid } } = host;
    this.#hosts.set(facts.host, host);
    this.#hostOfPeer.set(peer, host);
    host.join(facts, peer);
    if (replaced !== peer) {
      host.replacedPid = replaced === null || replacedPid === facts.pid ? null : replacedPid;
      replaced?.close();
      this.#config.onEvent({ type: "host_joined", facts });
      host.orphansDueMs = this.#config.clock.nowMs() + this.#config.timeoutMs;
    }
    const { orders } = facts;
    this.#config.onJoin(orders, peer);
    this.#noteRoom(true);
    return decision;
  }

  /**
   * Waits for its turn, and for the end of the replacement.
   * @throws {UnavailableError} this manager leads no more: the next one is to be asked
   * @throws {ConflictError} the instance was not replaced
   */
  async #replace({ instanceId }: AgentReplace, peer: Peer): Promise<void> {
    const { authority, replace } = this.#config;
    authority.demand();
    const host = this.#joined(peer);
    if (!host.processes.has(instanceId)) return; // it has ended
    try {
      await replace(instanceId, () => host.peer === peer);
    } catch (error) {
      if (this.#isStopped) throw new UnavailableError("this manager is stopping");
      authority.demand();
      throw new ConflictError(toErrorRecord(error).message);
    }
  }

  #versions(peer: Peer): AgentVersions {
    const instances = [...this.#joined(peer).processes.keys()].map((instanceId) => ({
      instanceId,
      version: this.#config.versionOf(instanceId),
    }));
    return { instances };
  }

  /** @throws {MessageError} the peer is no agent that has joined */
  #joined(peer: Peer): AgentHost {
    const host = this.#hostOfPeer.get(peer);
    if (host === undefined) throw new MessageError(`${peer.remote} is no agent that has joined`);
    return host;
  }

  #checkSettings({ host, settings }: AgentJoin): void {
    if (settings === undefined || this.#config.settings === undefined) return;
    const mine = this.#config.settings;
    const difference = settingsDifference(settings, mine, `host ${host}`, "the manager");
    if (difference === null) return;
    throw new UsageError(`${difference}: give all hosts of a service the same`);
  }

  /**
   * An agent takes the place of another one of its machine: the other one has ended, and its connection
   * has not yet. If the other one comes back, both run, and would take turns for ever.
   */
  #checkName(host: AgentHost, facts: AgentJoin, peer: Peer): void {
    const { peer: holder, facts: other } = host;
    if (holder === null || holder === peer) return;
    if (other.machine === facts.machine && host.replacedPid !== facts.pid) return;
    throw new UsageError(
      `two hosts have the name "${facts.host}": the one at ${other.address} (process ${other.pid}) ` +
        `and the one at ${facts.address} (process ${facts.pid}). Give one of them another --host-name`,
    );
  }

  /** A refused agent may ask again and again. */
  #noteRefusal({ host, address }: AgentJoin, reason: string): void {
    const others = this.#refusals.filter((one) => one.host !== host || one.address !== address);
    const refusal = { host, address, reason, atMs: this.#config.clock.nowMs() };
    this.#refusals = [...others, refusal].slice(-MAX_REFUSALS);
  }

  /** The instances of a host that is away go on, and its next agent finds them. */
  #forgetOne(): void {
    const allAbsent = [...this.#hosts.values()].filter(({ peer }) => peer === null);
    const absent = allAbsent.find(({ instances }) => instances === 0) ?? allAbsent[0];
    if (absent === undefined) {
      throw new OverloadedError(`a manager takes no more than ${MAX_HOSTS} hosts`);
    }
    this.#hosts.delete(absent.name);
  }

  /** An instance that runs and does not join the manager hangs. It takes a slot. */
  #killOrphans(host: AgentHost): void {
    host.orphansDueMs = Infinity;
    for (const instanceId of [...host.processes.keys()]) {
      if (this.#config.knows(instanceId)) continue;
      this.#stop(instanceId, "SIGKILL");
      this.#config.onEvent({ type: "orphan_killed", instanceId });
    }
    this.#noteRoom(false);
  }

  /** Its agent has been away for long, and no instance of it serves. */
  #isLost(host: AgentHost): boolean {
    const { lostHostMs = DEFAULT_LOST_HOST_MS } = this.#config;
    return host.absentMs >= lostHostMs &&
      ![...host.processes.keys()].some(this.#config.knows);
  }

  #exited({ instanceId, ...status }: AgentExited, peer: Peer): void {
    this.#joined(peer).end(instanceId, status);
    this.#noteRoom(false);
  }

  async #ping(host: AgentHost): Promise<void> {
    const { peer } = host;
    if (peer === null || host.isPinged) return;
    host.isPinged = true;
    try {
      await peer.call("ping", { data: null }, { timeoutMs: this.#config.timeoutMs });
    } catch {
      await peer.close();
    } finally {
      host.isPinged = false;
    }
  }
}

/** Whether a join of an agent is one of before, or the same again. */
function isOlder({ pid, number }: AgentJoin, latest: AgentJoin): boolean {
  if (number === undefined || latest.number === undefined) return false;
  return pid === latest.pid && number <= latest.number;
}
