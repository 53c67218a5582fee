import type { Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import { type ErrorRecord, fromErrorRecord } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceInfo, InstanceType } from "../../core/protocol/instance_info.ts";
import type { InstanceRegistration, JoinRequest } from "../../core/protocol/membership.ts";
import type { MigrationId, MigrationReport } from "../../core/protocol/migration.ts";
import { type Authority, soleAuthority } from "../authority.ts";
import { type Drain, type DrainCause, joinedDrains } from "./drain.ts";
import { ProcessHandle } from "./process_handle.ts";

/** A request that was dispatched to an instance before it drained has arrived there by then. */
const DISPATCH_SETTLED_MS = 1_000;

/**
 * `starting`: it has not registered. `serving`: API servers may be connected to it. `stopping`: the
 * manager asked it to stop. `lost`: its process ended, or the manager gave it up.
 */
export type Phase = "starting" | "serving" | "stopping" | "lost";

/** The phases that may follow each. */
const successors: Readonly<Record<Phase, readonly Phase[]>> = {
  starting: ["serving", "stopping", "lost"],
  serving: ["stopping", "lost"],
  stopping: ["lost"],
  lost: [],
};

/**
 * What the manager knows of one instance, from its launch, or from its first join, to its end. The phase
 * only goes forward. A drain does not change the phase: a serving instance may begin to drain, and may
 * be kept.
 */
export class ManagedInstance {
  readonly process = new ProcessHandle();
  readonly #plannedType: InstanceType;
  #phase: Phase = "starting";
  #drain: Drain | null = null;
  /** Identifies its process; null: it has not joined yet. */
  #firstJoin: JoinRequest | null = null;
  #peer: Peer | null = null;
  #registration: InstanceRegistration | null = null;
  #info: InstanceInfo | null = null;
  #failure: ErrorRecord | null = null;
  #migrationId: MigrationId | null = null;
  #servingSinceMs = Infinity;
  #lastDispatchMs = -Infinity;
  #silentChecks = 0;
  #cancelRejoinWait: (() => void) | null = null;
  readonly #ready = Promise.withResolvers<void>();

  /** @param plannedType its type until it registers, which may be with another type */
  constructor(
    readonly instanceId: InstanceId,
    plannedType: InstanceType,
    private readonly authority: Authority = soleAuthority,
  ) {
    this.#plannedType = plannedType;
    this.#ready.promise.catch(() => {}); // only `Fleet.start` waits for it
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** Null: it does not drain. */
  get drain(): Drain | null {
    return this.#drain;
  }

  get type(): InstanceType {
    return this.#registration?.instanceType ?? this.#plannedType;
  }

  get startedBy(): NonNullable<JoinRequest["startedBy"]> {
    return this.#firstJoin?.startedBy ?? "manager";
  }

  /** Tells its process from others of the same name; undefined: not known. */
  get incarnation(): string | undefined {
    return this.#firstJoin?.incarnation;
  }

  get hasJoined(): boolean {
    return this.#firstJoin !== null;
  }

  /** Null while it is not connected. */
  get peer(): Peer | null {
    return this.#peer;
  }

  /** Null until it serves. */
  get registration(): InstanceRegistration | null {
    return this.#registration;
  }

  /** The name of its host; null: not known, or it does not serve yet. */
  get hostName(): string | null {
    return this.#registration?.hostName ?? null;
  }

  /** Its latest report, with what the manager knows to have changed since; null before the first. */
  get info(): InstanceInfo | null {
    return this.#info;
  }

  /** The error that it sent before it ended. */
  get failure(): ErrorRecord | null {
    return this.#failure;
  }

  /** The migration that it takes part in, as source or destination. */
  get migrationId(): MigrationId | null {
    return this.#migrationId;
  }

  /** When it began to serve; Infinity before. */
  get servingSinceMs(): number {
    return this.#servingSinceMs;
  }

  /** Resolves when it serves; rejects when it ends before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Not started by this manager, and never served so far: it does not count as wanted yet. */
  get isCandidate(): boolean {
    if (this.#firstJoin === null || this.#registration !== null) return false;
    return this.startedBy !== "manager" && this.#firstJoin.isRunning !== true;
  }

  get isLost(): boolean {
    return this.#phase === "lost";
  }

  get isServing(): boolean {
    return this.#phase === "serving";
  }

  get isDraining(): boolean {
    return this.#drain !== null;
  }

  /** It stops once it is empty, and no other takes its place. */
  get isBeingRemoved(): boolean {
    return this.#drain?.isRemoval === true;
  }

  /** It serves or starts, and is not being removed. */
  get isStaying(): boolean {
    return (this.#phase === "starting" || this.#phase === "serving") && !this.isBeingRemoved;
  }

  /** It can take requests. */
  get isAvailable(): boolean {
    return this.isServing && !this.isDraining && this.#peer !== null && this.#failure === null;
  }

  /** If it loses its connection, it gets time to join again. */
  get mayRejoin(): boolean {
    return this.isServing && this.#drain?.by !== "itself" && this.#failure === null;
  }

  /** It has no request, according to its latest report. */
  get isEmpty(): boolean {
    const { info } = this;
    return info === null || info.runningRequests + info.waitingRequests + info.killedRequests === 0;
  }

  /** Requests wait there, according to its latest report, until others end or move away. */
  get hasQueue(): boolean {
    const { info } = this;
    return info !== null && info.waitingRequests + info.killedRequests > 0;
  }

  /** It has no request, and none is on its way to it or from it. */
  isDrained(nowMs: number): boolean {
    return this.isEmpty && this.#migrationId === null &&
      nowMs - this.#lastDispatchMs >= DISPATCH_SETTLED_MS;
  }

  /** Whether a join comes from its process, and not from another one that uses the same name. */
  isSameAs({ incarnation, startedBy = "manager" }: JoinRequest): boolean {
    return this.hasJoined ? incarnation === this.incarnation : startedBy === "manager";
  }

  /** @returns the connection that this one replaces; null: it had none */
  join(request: JoinRequest, peer: Peer): Peer | null {
    this.#firstJoin ??= request;
    const before = this.#peer;
    this.#peer = peer;
    return before;
  }

  /** It serves, or serves again. If it is stopping or lost, its phase does not change. */
  register(registration: InstanceRegistration, nowMs: number): void {
    this.#cancelRejoinWait?.();
    this.#registration = registration;
    if (this.#servingSinceMs === Infinity) {
      this.#servingSinceMs = nowMs;
      // A manager before this one may just have dispatched a request, and the first report is under way.
      if (this.#firstJoin?.isRunning) this.#lastDispatchMs = nowMs;
    }
    this.#enter("serving");
    this.#ready.resolve();
  }

  /** A no-op when it has served. */
  failStart(reason: string): void {
    const kind = this.#failure?.kind ?? "internal";
    this.#ready.reject(fromErrorRecord({ kind, message: reason }));
  }

  noteFailure(error: ErrorRecord): void {
    this.#failure = error;
  }

  /**
   * It begins to drain, or drains for one more reason.
   * @returns whether it did not drain before
   */
  beginDrain(by: DrainCause, isRemoval = false): boolean {
    const before = this.#drain;
    this.#drain = joinedDrains(before, { by, isRemoval });
    return before === null;
  }

  /** @returns the drain that ended; null: it does not drain, or its process is about to end */
  endDrain(): Drain | null {
    const drain = this.#drain;
    if (this.#phase === "stopping" || drain?.by === "itself") return null;
    this.#drain = null;
    return drain;
  }

  /**
   * The whole service is about to end: an instance that drains by itself serves on until then.
   * @returns as {@linkcode endDrain}
   */
  overruleOwnDrain(): Drain | null {
    const drain = this.#drain;
    if (drain?.by !== "itself") return null;
    this.#drain = null;
    const data = this.authority.stamp;
    if (data !== null) this.#peer?.notify("keep", { data });
    return drain;
  }

  /**
   * It reports. Reports may overtake each other: the latest state counts.
   * @returns its latest state, with the finished and received requests of this report
   */
  takeInfo(info: InstanceInfo): InstanceInfo {
    this.#silentChecks = 0;
    const newest = this.#info;
    const isOvertaken = newest !== null && info.timestampMs < newest.timestampMs;
    const { finishedRequestIds, receivedRequestIds } = info;
    return this.#info = isOvertaken ? { ...newest, finishedRequestIds, receivedRequestIds } : info;
  }

  /** A health check heard nothing since the previous one. @returns the number of such checks in a row */
  noteSilence(): number {
    return ++this.#silentChecks;
  }

  noteHeard(): void {
    this.#silentChecks = 0;
  }

  noteDispatch(nowMs: number): void {
    this.#lastDispatchMs = nowMs;
  }

  beginMigration(migrationId: MigrationId): void {
    this.#migrationId = migrationId;
  }

  endMigration(): void {
    this.#migrationId = null;
  }

  /**
   * Requests have moved to another instance. The reports that say so may still be under way, so this
   * corrects what is known of both. At the source each request is subtracted exactly once: while all
   * its requests wait to move, the source may send no more reports. At the destination a request may be
   * counted twice for a moment, but is never missing.
   */
  noteMoved(committed: readonly MigrationReport[], to: ManagedInstance): void {
    const { info } = this;
    if (info) {
      const unknown = committed.filter(({ leftMs = Infinity }) => leftMs > info.timestampMs).length;
      this.#info = { ...info, leavingRequests: Math.max(0, info.leavingRequests - unknown) };
    }
    to.#noteReceived(committed.length, committed.reduce((sum, { blocks }) => sum + blocks, 0));
  }

  #noteReceived(requests: number, blocks: number): void {
    const { info } = this;
    if (info === null) return;
    this.#info = {
      ...info,
      runningRequests: info.runningRequests + requests,
      usedBlocks: info.usedBlocks + blocks,
      freeBlocks: info.freeBlocks - blocks,
    };
  }

  /** Its connection has ended. */
  disconnect(): void {
    this.#peer = null;
    this.process.noteDisconnected();
  }

  /** @param onTimeout called after `waitMs`, unless it registers again or is given up */
  awaitRejoin(clock: Clock, waitMs: number, onTimeout: () => void): void {
    this.#cancelRejoinWait = clock.after(waitMs, onTimeout);
  }

  cancelRejoinWait(): void {
    this.#cancelRejoinWait?.();
  }

  askToStop(): void {
    this.#enter("stopping");
    const data = this.authority.stamp;
    if (data === null) {
      // Others are the leader's now. A child drains, and gives its requests away.
      if (this.process.isChild) this.process.terminate();
      return;
    }
    if (this.#peer?.isOpen) this.#peer.notify("shutdown", { data });
    else if (this.process.isChild) this.process.terminate();
    else this.kill(); // without connection and not a child: only a signal reaches it
  }

  /** @returns false: it was lost before */
  markLost(): boolean {
    this.#cancelRejoinWait?.();
    return this.#enter("lost");
  }

  /** Kills its process if possible, and ends its connection. */
  kill(): void {
    this.process.kill();
    this.#peer?.close();
    if (!this.#peer) this.process.noteDisconnected();
  }

  /**
   * Why a lost instance ended. Its last message and the exit of its process may still be under way, so
   * this waits a moment for both. It kills a child process that only lost its connection; another
   * process gets more time to end.
   * @param cause why the manager gives it up while its process runs: it is killed at once
   */
  async describeEnd(clock: Clock, cause: string | null): Promise<string> {
    const status = cause === null ? await this.process.endWithinGrace(clock) : null;
    const mayStillEnd = cause === null && !this.process.isChild;
    if (!this.process.hasEnded && !mayStillEnd) this.kill();
    const verb = this.#registration ? "failed" : "could not start";
    if (this.#failure) return `${this.instanceId} ${verb}: ${this.#failure.message}`;
    const end = this.process.describeEnd(status, cause);
    return `${this.instanceId} ${end}${this.#registration ? "" : " before it was ready"}`;
  }

  /** Enters a phase if it may follow the present one. @returns whether it did */
  #enter(phase: Phase): boolean {
    if (!successors[this.#phase].includes(phase)) return false;
    this.#phase = phase;
    return true;
  }
}
