/**
 * One end of a communicator of two ranks as a state machine. No call waits inside NCCL: NCCL works in the
 * background, and this class polls it until a deadline.
 *
 * ```
 * none --open--> opening --> idle --transfer--> posting --> moving --> idle
 *                   |          |                    |          |
 *                   +----------+----- abort --------+----------+----> aborting --> none, or dead
 * ```
 *
 * Rules, each proved by a mutant in `test/ffi/nccl/mutants.ts`:
 * - While NCCL answers "in progress", the only calls on the communicator are polls and the abort.
 * - The event is recorded when the group is no longer "in progress". Before that the kernel is not in the
 *   stream, and the event would complete at once, without data.
 * - A transfer has succeeded if its event is done, the state is "success" after that, and no abort has
 *   begun. The event of an aborted kernel also completes.
 * - Every group is ended, even if a send in it fails: NCCL counts the open groups of a thread.
 * - Polling stops before the abort starts: the abort frees the handle, on another thread.
 * - Aborts run at the same time: one abort may wait for a kernel that only the other abort ends.
 */
import { setImmediate } from "node:timers";
import type { Cuda } from "../cuda/cuda.ts";
import { PairDeadError, TransferFailedError } from "./errors.ts";
import type { Nccl } from "./nccl.ts";

/** The calls of libnccl that a pair needs. */
export type NcclCalls = Pick<
  Nccl,
  | ("uniqueId" | "initRank" | "asyncState" | "groupStart" | "groupEnd" | "send" | "receive")
  | ("finalize" | "abort" | "destroy")
>;

/** The calls of CUDA that a pair needs. The device of its streams is current on the calling thread. */
export type EventCalls = Pick<
  Cuda,
  "createEvent" | "recordEvent" | "queryEvent" | "destroyEvent"
>;

/** Adjacent bytes of device memory. */
export interface Run {
  readonly address: bigint;
  readonly bytes: number;
}

export type CommunicatorState =
  | ("none" | "opening" | "idle" | "posting" | "moving" | "aborting")
  | "dead";

export interface CommunicatorOptions {
  readonly nccl: NcclCalls;
  readonly events: EventCalls;
  /** Of low priority, used by nothing else. */
  readonly stream: bigint;
  /** The sender is rank 0, the receiver rank 1. */
  readonly rank: 0 | 1;
  /** Thread blocks of a transfer (4): few, so that NCCL takes little of the device from decoding. */
  readonly maxCtas?: number;
  /** An abort that takes longer, or fails, makes the communicator dead (10,000). */
  readonly abortLimitMs?: number;
}

const MAX_CTAS = 4;
const ABORT_LIMIT_MS = 10_000;
/** Polling does not pause for so long, then pauses a millisecond each time: most waits are short. */
const EAGER_POLL_MS = 0.3;
/** Limit on using up an id: see `#useUpId`. */
const USE_UP_MS = 500;

export class Communicator {
  readonly #options: CommunicatorOptions;
  readonly #died = Promise.withResolvers<string>();
  #state: CommunicatorState = "none";
  #handle = 0n;
  /** The id that this end made, until both ranks have joined. Its root holds a thread and a port. */
  #unusedId: Uint8Array<ArrayBuffer> | null = null;
  /** One for each `open`. `stopped` stays set after an abort, for a poll that wakes up late. */
  #attempt: { stopped: Error | null } = { stopped: null };
  #ending: Promise<void> | null = null;

  constructor(options: CommunicatorOptions) {
    this.#options = options;
  }

  get state(): CommunicatorState {
    return this.#state;
  }

  /** Resolves with the reason once the communicator is dead. */
  get died(): Promise<string> {
    return this.#died.promise;
  }

  /**
   * Makes the communicator. Call `abort` if it throws.
   * @param id the same at both ends; null makes one, and `publish` gets it for the other end
   * @param deadlineMs of performance.now(), here and below
   * @throws {TransferFailedError} the deadline has passed, or an abort began
   * @throws {NcclError}
   */
  async open(
    id: Uint8Array<ArrayBuffer> | null,
    deadlineMs: number,
    publish: (id: Uint8Array) => void = () => {},
  ): Promise<void> {
    this.#enter("none", "opening");
    this.#attempt = { stopped: null };
    const { nccl, rank } = this.#options;
    if (id === null) {
      id = this.#unusedId = nccl.uniqueId();
      publish(id);
    }
    this.#handle = this.#init(id, rank);
    await this.#until(() => this.#isSettled(), deadlineMs, "NCCL opens the communicator", "idle");
    this.#unusedId = null;
  }

  /**
   * Sends or receives runs in one group. Call `abort` if it throws; some bytes may have moved.
   * @throws {TransferFailedError} the deadline has passed, or an abort began
   * @throws {NcclError}
   */
  async transfer(runs: readonly Run[], deadlineMs: number): Promise<void> {
    this.#enter("idle", "posting");
    const { events, stream } = this.#options;
    this.#post(runs);
    await this.#until(() => this.#isSettled(), deadlineMs, "the peer posts, too", "moving");
    const event = events.createEvent();
    try {
      events.recordEvent(event, stream);
      // The event first: an error that completes the event is visible in the state that is read after.
      const isMoved = () => {
        const isEventDone = events.queryEvent(event);
        return this.#isSettled() && isEventDone;
      };
      await this.#until(isMoved, deadlineMs, "the bytes have moved", "idle");
    } finally {
      events.destroyEvent(event);
    }
  }

  /**
   * Ends the communicator in any state. Resolves when NCCL no longer reads or writes memory. A second
   * call waits for the first one.
   * @throws {PairDeadError} NCCL did not come back, or failed: the communicator is dead
   */
  abort(reason: Error): Promise<void> {
    if (this.#state === "none") return Promise.resolve();
    return this.#ending ??= this.#runAbort(reason).finally(() => this.#ending = null);
  }

  /** Ends an idle communicator. The other end must do the same by the deadline; if not, this one aborts. */
  async close(deadlineMs: number): Promise<void> {
    if (this.#state === "none") return;
    try {
      if (this.#state !== "idle") throw new TransferFailedError(`closed in state ${this.#state}`);
      const { nccl } = this.#options;
      nccl.finalize(this.#handle);
      const isFinal = () => this.#isSettled();
      await this.#until(isFinal, deadlineMs, "the peer closes, too", "aborting");
    } catch (error) {
      return await this.abort(error as Error);
    }
    await (this.#ending ??= this.#runDestroy().finally(() => this.#ending = null));
  }

  #enter(from: CommunicatorState, to: CommunicatorState): void {
    if (this.#state !== from) throw new TransferFailedError(`${to} in state ${this.#state}`);
    this.#state = to;
  }

  #init(id: Uint8Array<ArrayBuffer>, rank: number): bigint {
    const { nccl, maxCtas = MAX_CTAS } = this.#options;
    return nccl.initRank(2, id, rank, { minCtas: 1, maxCtas });
  }

  #post(runs: readonly Run[]): void {
    const { nccl, rank, stream } = this.#options;
    nccl.groupStart();
    try {
      for (const { address, bytes } of runs) {
        if (rank === 0) nccl.send(address, bytes, 1, this.#handle, stream);
        else nccl.receive(address, bytes, 0, this.#handle, stream);
      }
    } finally {
      nccl.groupEnd();
    }
  }

  #isSettled(): boolean {
    return this.#options.nccl.asyncState(this.#handle) === "success";
  }

  /**
   * Polls until `isDone`, and goes on to a state.
   * @throws {TransferFailedError} the deadline has passed
   * @throws {Error} the reason of an abort that began meanwhile
   */
  async #until(
    isDone: () => boolean,
    deadlineMs: number,
    what: string,
    next: CommunicatorState,
  ): Promise<void> {
    const startMs = performance.now();
    const attempt = this.#attempt;
    for (;;) {
      if (attempt.stopped !== null) throw attempt.stopped;
      if (isDone()) break;
      const nowMs = performance.now();
      if (nowMs > deadlineMs) {
        const waited = `waited ${(nowMs - startMs).toFixed(0)} ms until ${what}`;
        throw new TransferFailedError(`the transfer's deadline has passed: ${waited}`);
      }
      await (nowMs - startMs < EAGER_POLL_MS ? nextTurn() : sleep(1));
    }
    this.#state = next;
  }

  async #runAbort(reason: Error): Promise<void> {
    if (this.#state === "dead") throw new PairDeadError(await this.#died.promise);
    this.#attempt.stopped = reason;
    this.#state = "aborting";
    const standIn = await this.#useUpId();
    const handles = [this.#handle, standIn].filter((handle) => handle !== 0n);
    this.#handle = 0n;
    await this.#limited(Promise.all(handles.map((handle) => this.#options.nccl.abort(handle))));
    this.#forget();
  }

  async #runDestroy(): Promise<void> {
    await this.#limited(this.#options.nccl.destroy(this.#handle));
    this.#forget();
  }

  /**
   * If the other rank never joins, the id's root keeps a thread, a port and a descriptor, and NCCL has no
   * call to end it. So this end also joins in place of the missing rank: then the root ends.
   * @returns the handle of that second communicator, which the caller aborts; 0 if there is none
   */
  async #useUpId(): Promise<bigint> {
    const id = this.#unusedId;
    if (id === null || !this.#isInProgress(this.#handle)) return 0n;
    let standIn: bigint;
    try {
      standIn = this.#init(id, 1);
    } catch {
      return 0n; // the abort of the first communicator matters more
    }
    const endMs = performance.now() + USE_UP_MS;
    while (this.#isInProgress(this.#handle) || this.#isInProgress(standIn)) {
      if (performance.now() > endMs) break;
      await sleep(1);
    }
    return standIn;
  }

  /** False also if the communicator has failed. */
  #isInProgress(handle: bigint): boolean {
    try {
      return handle !== 0n && this.#options.nccl.asyncState(handle) === "inProgress";
    } catch {
      return false;
    }
  }

  /** Waits until NCCL has ended a communicator. @throws {PairDeadError} it took too long, or failed */
  async #limited(end: Promise<unknown>): Promise<void> {
    const { abortLimitMs = ABORT_LIMIT_MS } = this.#options;
    const limit = Promise.withResolvers<string>();
    const timer = setTimeout(
      () => limit.resolve(`nothing within ${abortLimitMs} ms`),
      abortLimitMs,
    );
    const ended = end.then(() => null, (error) => String(error));
    const failure = await Promise.race([ended, limit.promise]);
    clearTimeout(timer);
    if (failure === null) return;
    this.#state = "dead";
    const reason = `NCCL did not end a communicator (${failure}); restart the process`;
    this.#died.resolve(reason);
    throw new PairDeadError(reason);
  }

  #forget(): void {
    this.#handle = 0n;
    this.#unusedId = null;
    this.#state = "none";
  }
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
