/**
 * One end of a communicator of two ranks as a state machine. No call waits inside NCCL: what NCCL does
 * in the background is polled, with a deadline.
 *
 * ```
 * none --open--> opening --> idle --transfer--> posting --> moving --> idle
 *                   |          |                    |          |
 *                   +----------+----- abort --------+----------+----> aborting --> none, or dead
 * ```
 *
 * Rules, each proved by a mutant in `test/ffi/nccl/mutants.ts`:
 * - While NCCL answers "in progress", the only calls on the communicator are the poll and the abort.
 * - The event is recorded once the group is out of "in progress": earlier, the kernel is not in the
 *   stream, and the event completes at once without data.
 * - A transfer has succeeded if its event is done, then the state is "success", and no abort began. The
 *   event of an aborted kernel completes, too.
 * - A group that was begun is ended, whatever happens in between: NCCL counts groups a thread.
 * - No poll follows the start of an abort, which frees the handle on another thread.
 * - Aborts never wait for each other: one may wait for a kernel that only another one ends.
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
/** Polls follow each other at once for so long, then every millisecond: most opens and posts are short. */
const EAGER_POLL_MS = 0.3;
/** How long the missing rank's stand-in may take to use up an id. */
const USE_UP_MS = 500;

export class Communicator {
  readonly #options: CommunicatorOptions;
  readonly #died = Promise.withResolvers<string>();
  #state: CommunicatorState = "none";
  #handle = 0n;
  /** The id that this end made, until both ranks have come: its root keeps a thread and a port. */
  #unusedId: Uint8Array<ArrayBuffer> | null = null;
  /** From `open` to the end. Its `stopped` stays set: a poll that wakes up late still sees it. */
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
   * @param id the same at both ends; null: makes one, and hands it to `publish` for the other end
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
   * Sends or receives runs in one group. Call `abort` if it throws: then nothing says which bytes moved.
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
      // The event first: what ends it, an error or the data, shows in the state that is read after.
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
   * Ends the communicator, whatever it does. Resolves once NCCL reads and writes nothing any more; a
   * second call joins the first one.
   * @throws {PairDeadError} NCCL did not come back, or failed: the communicator is dead
   */
  abort(reason: Error): Promise<void> {
    if (this.#state === "none") return Promise.resolve();
    return this.#ending ??= this.#runAbort(reason).finally(() => this.#ending = null);
  }

  /** The orderly end of an idle communicator, which both ends begin at about the same time. */
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
   * An id whose second rank never comes keeps its root's thread, port and descriptor, and NCCL has no
   * call to end it. Joining in the missing rank's place does; the abort follows.
   * @returns the handle of the stand-in, 0 if none is needed
   */
  async #useUpId(): Promise<bigint> {
    const id = this.#unusedId;
    if (id === null || !this.#isInProgress(this.#handle)) return 0n;
    let standIn: bigint;
    try {
      standIn = this.#init(id, 1);
    } catch {
      return 0n; // the abort is what counts
    }
    const endMs = performance.now() + USE_UP_MS;
    while (this.#isInProgress(this.#handle) || this.#isInProgress(standIn)) {
      if (performance.now() > endMs) break;
      await sleep(1);
    }
    return standIn;
  }

  /** False for a failure, too. */
  #isInProgress(handle: bigint): boolean {
    try {
      return handle !== 0n && this.#options.nccl.asyncState(handle) === "inProgress";
    } catch {
      return false;
    }
  }

  /** Waits for the end of a communicator. @throws {PairDeadError} it did not end in time, or failed to */
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
