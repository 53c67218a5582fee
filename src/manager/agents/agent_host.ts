import type { Peer } from "../../bus/bus.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { AgentJoin } from "../../core/protocol/agents.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { ExitStatus } from "../fleet/launcher.ts";
import type { HostRoom } from "./placement.ts";

/** How long a host where an instance failed comes after the others. */
const FAILURE_MS = 60_000;

/** The process of an instance on a host, as its agent last told. */
export class HostedProcess {
  readonly #exited = Promise.withResolvers<ExitStatus>();
  readonly #started = Promise.withResolvers<number>();
  #pid: number | null = null;
  /** The connection over which this manager has ordered its start; null: an earlier manager has. */
  orderedOver: Peer | null = null;
  /** The manager wants it to end, or has seen it end. */
  isUnwanted = false;
  #hasEnded = false;

  constructor() {
    this.#started.promise.catch(() => {}); // only a start whose answer is lost waits for it
  }

  /** Null while its start is under way. */
  get pid(): number | null {
    return this.#pid;
  }

  /** Resolves with its pid; rejects if it ends before that is known. */
  get started(): Promise<number> {
    return this.#started.promise;
  }

  get exited(): Promise<ExitStatus> {
    return this.#exited.promise;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  noteStarted(pid: number): void {
    this.#pid = pid;
    this.#started.resolve(pid);
  }

  end(status: ExitStatus): void {
    this.#hasEnded = true;
    this.#started.reject(new UnavailableError("it is not known to run"));
    this.#exited.resolve(status);
  }
}

/** How a process ended of which that is not known. */
export const unknownEnd: ExitStatus = { code: null, signal: null };

/** A host with an agent, from its first join on. */
export class AgentHost implements HostRoom {
  /** Processes that have not ended, as far as is known. */
  readonly processes = new Map<InstanceId, HostedProcess>();
  /** Null while the agent is away. */
  peer: Peer | null = null;
  /** The agent whose place the present one has taken while it was connected; null: none. */
  replacedPid: number | null = null;
  /** A ping is under way. */
  isPinged = false;
  /** When those of its processes that have not joined the manager are killed; Infinity: none may be left. */
  orphansDueMs = Infinity;
  /** When its agent went away. */
  #leftMs = Infinity;
  /** Blocks of the first instance that served here: later ones get as many, since they share the memory. */
  numBlocks: number | null = null;
  #failedMs = -Infinity;

  constructor(public facts: AgentJoin, private readonly nowMs: () => number) {}

  get name(): string {
    return this.facts.host;
  }

  get slots(): number {
    return this.facts.slots;
  }

  get instances(): number {
    return this.processes.size;
  }

  get memoryBytes(): number {
    return this.facts.resources.memoryBytes;
  }

  get hasFailed(): boolean {
    return this.nowMs() - this.#failedMs < FAILURE_MS;
  }

  noteFailure(): void {
    this.#failedMs = this.nowMs();
  }

  noteServing(totalBlocks: number): void {
    this.#failedMs = -Infinity;
    this.numBlocks ??= totalBlocks;
  }

  /** A process has ended. */
  end(instanceId: InstanceId, status: ExitStatus): void {
    const process = this.processes.get(instanceId);
    if (process === undefined) return;
    this.processes.delete(instanceId);
    if (!process.isUnwanted && status.code !== 0) this.noteFailure();
    if (this.processes.size === 0) this.numBlocks = null;
    process.end(status);
  }

  /** How long its agent has been away; 0: it is there. */
  get absentMs(): number {
    return this.peer === null ? this.nowMs() - this.#leftMs : 0;
  }

  /** The agent has joined over this connection, and tells which processes run. */
  join(facts: AgentJoin, peer: Peer): void {
    this.facts = facts;
    this.peer = peer;
    const running = new Map(facts.instances.map(({ instanceId, pid }) => [instanceId, pid]));
    const starting = new Set(facts.starting);
    for (const [instanceId, { pid, orderedOver }] of [...this.processes]) {
      if (pid === null) {
        // An order over this connection may be on its way; one over a connection before is obeyed no more.
        const isThere = running.has(instanceId) || starting.has(instanceId);
        if (!isThere && orderedOver !== peer) this.end(instanceId, unknownEnd);
      } else if (running.get(instanceId) !== pid) this.end(instanceId, unknownEnd);
    }
    for (const [instanceId, pid] of running) this.take(instanceId).noteStarted(pid);
    for (const instanceId of starting) this.take(instanceId);
  }

  /** The entry of a process; a new one if there is none. */
  take(instanceId: InstanceId): HostedProcess {
    const known = this.processes.get(instanceId);
    if (known !== undefined) return known;
    const process = new HostedProcess();
    this.processes.set(instanceId, process);
    return process;
  }

  /** The agent is away. Its processes go on, except for those that were to end: nothing more will be heard. */
  leave(): void {
    this.peer = null;
    this.#leftMs = this.nowMs();
    for (const [instanceId, { isUnwanted }] of [...this.processes]) {
      if (isUnwanted) this.end(instanceId, unknownEnd);
    }
  }
}
