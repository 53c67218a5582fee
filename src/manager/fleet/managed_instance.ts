import type { Peer } from "../../bus/bus.ts";
import { type Clock, sleep } from "../../core/clock.ts";
import { type ErrorRecord, fromErrorRecord } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceInfo, InstanceType } from "../../core/protocol/instance_info.ts";
import type { InstanceRegistration, JoinRequest } from "../../core/protocol/membership.ts";
import type { MigrationId, MigrationReport } from "../../core/protocol/migration.ts";
import type { AdoptedInstance, ExitStatus, LaunchedInstance } from "./launcher.ts";

/** The end of a connection and of a process are noticed apart; how long to wait for the second. */
const END_GRACE_MS = 500;
/** How often it is looked whether a process that was found running has ended. */
const END_POLL_MS = 20;

/**
 * What the manager knows of one instance, from its launch to its end, or from the moment when it was
 * found running.
 */
export class ManagedInstance {
  /** What it is, or is to be. */
  type: InstanceType;
  /** Settled as soon as its process runs, or cannot. */
  launching: Promise<LaunchedInstance> | null = null;
  launched: LaunchedInstance | null = null;
  /** Of one that was found running. */
  adopted: AdoptedInstance | null = null;
  startedBy: NonNullable<JoinRequest["startedBy"]> = "manager";
  /** Others start it, and it has not served yet: it is not one of those that are wanted. */
  isCandidate = false;
  /** It has connected at least once. */
  hasJoined = false;
  /** Of its process, if it said so when it joined. */
  incarnation: string | undefined = undefined;
  /** Set while it is connected. */
  peer: Peer | null = null;
  registration: InstanceRegistration | null = null;
  info: InstanceInfo | null = null;
  /** What it said before it ended. */
  failure: ErrorRecord | null = null;
  /** The migration that it takes part in, as source or destination. */
  migrationId: MigrationId | null = null;
  /** Takes no requests any more, and gives away those that it has. */
  isDraining = false;
  /** An operator wants it to drain: it is not for scaling to decide. */
  isDrainedByHand = false;
  /** It drains because it stops by itself: its process was asked to. Another takes its place. */
  isLeaving = false;
  /** It drains to be stopped, and none is to take its place. */
  isToGo = false;
  /** It was asked to stop. */
  isStopping = false;
  isLost = false;
  lastDispatchMs = -Infinity;
  /** When it began to serve; Infinity before. */
  servingSinceMs = Infinity;
  /** Health checks since it was heard. */
  silentTicks = 0;
  /** Ends the wait for an instance that lost its connection to join again. */
  cancelRejoinWait: (() => void) | null = null;
  readonly #ready = Promise.withResolvers<void>();
  readonly #disconnected = Promise.withResolvers<void>();
  #end: Promise<ExitStatus | null> | null = null;
  #hasEnded = false;
  #isKilled = false;

  constructor(readonly instanceId: InstanceId, type: InstanceType) {
    this.type = type;
    this.#ready.promise.catch(() => {}); // somebody may wait for it, or nobody
  }

  /** Whoever joins is its process. */
  isSameAs({ incarnation, startedBy = "manager" }: JoinRequest): boolean {
    return this.hasJoined ? incarnation === this.incarnation : startedBy === "manager";
  }

  /** Resolves when it serves; rejects when it ends before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** API servers may be connected to it. */
  get isServing(): boolean {
    return this.registration !== null && !this.isLost && !this.isStopping;
  }

  /** It serves, or will, and nobody wants it to go. */
  get isStaying(): boolean {
    return !this.isLost && !this.isStopping && !this.isToGo;
  }

  /** It can be given requests and orders. */
  get isAvailable(): boolean {
    return this.isServing && !this.isDraining && this.peer !== null && this.failure === null;
  }

  /** As far as is known it has no request. */
  get isEmpty(): boolean {
    const { info } = this;
    return info === null || info.runningRequests + info.waitingRequests + info.killedRequests === 0;
  }

  /** As far as is known requests wait there for others to end or leave. */
  get hasQueue(): boolean {
    const { info } = this;
    return info !== null && info.waitingRequests + info.killedRequests > 0;
  }

  /**
   * Resolves when its process has ended, or was killed as far as it can be; where it is out of reach,
   * when its connection has ended. Null: how it ended is not known.
   */
  untilEnded(clock: Clock): Promise<ExitStatus | null> {
    return this.#end ??= this.#awaitEnd(clock).finally(() => this.#hasEnded = true);
  }

  register(registration: InstanceRegistration, nowMs: number): void {
    this.registration = registration;
    this.isCandidate = false;
    this.servingSinceMs = Math.min(this.servingSinceMs, nowMs);
    this.type = registration.instanceType;
    this.#ready.resolve();
  }

  /** A no-op when it has served. */
  failStart(reason: string): void {
    const kind = this.failure?.kind ?? "internal";
    this.#ready.reject(fromErrorRecord({ kind, message: reason }));
  }

  /**
   * Requests have left to another instance, and the reports that say so may have yet to come. Here they
   * are counted once: an instance of which all requests wait to leave may have no more to report. There
   * they may be counted twice for a moment, never not at all.
   */
  noteMoved(committed: readonly MigrationReport[], to: ManagedInstance): void {
    const { info } = this;
    if (info) {
      const unknown = committed.filter(({ leftMs = Infinity }) => leftMs > info.timestampMs).length;
      this.info = { ...info, leavingRequests: Math.max(0, info.leavingRequests - unknown) };
    }
    to.noteArrived(committed.length, committed.reduce((sum, { blocks }) => sum + blocks, 0));
  }

  askToStop(): void {
    this.isStopping = true;
    if (this.peer?.isOpen) this.peer.notify("shutdown", { data: null });
    else if (this.launched) this.launched.stop("SIGTERM");
    else this.kill(); // it was found running, and nothing but a signal reaches it
  }

  killProcess(): void {
    this.#isKilled = true;
    (this.launched ?? this.adopted)?.stop("SIGKILL");
  }

  /** Ends it without its help. */
  kill(): void {
    this.killProcess();
    this.peer?.close();
    if (!this.peer) this.noteDisconnected();
  }

  /** Nothing more will come from it. */
  noteDisconnected(): void {
    this.#disconnected.resolve();
  }

  private noteArrived(requests: number, blocks: number): void {
    const { info } = this;
    if (info === null) return;
    this.info = {
      ...info,
      runningRequests: info.runningRequests + requests,
      usedBlocks: info.usedBlocks + blocks,
      freeBlocks: info.freeBlocks - blocks,
    };
  }

  /**
   * Why a lost instance ended. Its last message and the end of its process may still be under way, so
   * this waits a moment for both, and kills a child that only lost its connection. Whatever was found
   * running may still be ending after that.
   * @param cause why it is given up although it runs: it is killed at once
   */
  async describeEnd(clock: Clock, cause: string | null): Promise<string> {
    const status = cause === null ? await this.#awaitEndBriefly(clock) : null;
    const mayStillEnd = cause === null && this.launched === null;
    if (!this.#hasEnded && !mayStillEnd) this.kill();
    const verb = this.registration ? "failed" : "could not start";
    if (this.failure) return `${this.instanceId} ${verb}: ${this.failure.message}`;
    const end = status ? describeExit(status) : this.#describeLoss(cause);
    return `${this.instanceId} ${end}${this.registration ? "" : " before it was ready"}`;
  }

  #describeLoss(cause: string | null): string {
    const isReachable = this.launched !== null || this.adopted !== null;
    if (isReachable && this.#hasEnded && !this.#isKilled) return "has ended";
    const loss = cause ?? "lost its connection";
    return isReachable && this.#isKilled ? `${loss} and was killed` : loss;
  }

  /** Null when only its connection has ended. */
  async #awaitEndBriefly(clock: Clock): Promise<ExitStatus | null> {
    const grace = Promise.withResolvers<null>();
    const cancel = clock.after(END_GRACE_MS, () => grace.resolve(null));
    const status = await Promise.race([this.untilEnded(clock), grace.promise]);
    await Promise.race([this.#disconnected.promise, grace.promise]);
    cancel();
    return status;
  }

  async #awaitEnd(clock: Clock): Promise<ExitStatus | null> {
    if (this.launched) return await this.launched.exited;
    await this.#disconnected.promise;
    const { adopted } = this;
    while (adopted && !this.#isKilled && !adopted.hasEnded()) await sleep(clock, END_POLL_MS);
    return null;
  }
}

function describeExit({ code, signal }: ExitStatus): string {
  return signal ? `was ended by ${signal}` : `exited with code ${code}`;
}
