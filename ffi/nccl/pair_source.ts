/** The sending end of one direction of a pair. The rules are in `pair.ts`. */
import type { Communicator, Run } from "./communicator.ts";
import { TransferFailedError, TransferRefusedError } from "./errors.ts";
import { type DestinationMessage, MAX_RUNS, type SourceMessage } from "./pair_messages.ts";

/** Without `from` and, where it is the current one, `epoch`. */
type Outgoing<M> = M extends unknown ? Omit<M, "from" | "epoch"> : never;

export interface SendOptions {
  /** What the destination's owner needs to find its runs. JSON. */
  readonly note: unknown;
  /** Includes waiting for earlier transfers and opening the communicator. */
  readonly leftMs: number;
  /** Cancels the transfer. Aborts the communicator if the transfer has begun. */
  readonly signal?: AbortSignal;
}

export class PairSource {
  readonly #communicator: Communicator;
  readonly #post: (message: SourceMessage) => void | Promise<void>;
  #epoch = 0;
  #number = 0;
  #replies = new Replies();
  /** Resolves when the latest transfer has ended. */
  #turn: Promise<void> = Promise.resolve();
  #failing: Promise<void> | null = null;

  constructor(communicator: Communicator, post: (message: SourceMessage) => void | Promise<void>) {
    this.#communicator = communicator;
    this.#post = post;
  }

  /**
   * Sends runs, after the transfers that were begun earlier. Resolves when the bytes are in place at the
   * destination. Once it has settled, NCCL no longer reads the runs, except after a PairDeadError.
   * @throws {TransferRefusedError} the destination has no place for these runs; nothing has moved
   * @throws {TransferFailedError} the deadline has passed, the signal was aborted, the peer failed
   * @throws {NcclError}
   * @throws {PairDeadError} NCCL may still read the runs
   */
  async send(runs: readonly Run[], options: SendOptions): Promise<void> {
    checkRuns(runs);
    const deadlineMs = performance.now() + options.leftMs;
    const previous = this.#turn;
    const end = Promise.withResolvers<void>();
    this.#turn = end.promise;
    try {
      await turnOf(this.#readyAfter(previous), deadlineMs, options.signal);
      await this.#sendNow(runs, options, deadlineMs);
    } finally {
      previous.finally(end.resolve);
    }
  }

  receive(message: DestinationMessage): void {
    if (message.epoch !== this.#epoch) return;
    if (message.kind === "fail") this.lose(new TransferFailedError(message.reason));
    else this.#replies.put(message);
  }

  /** Ends the transfer under way and aborts, because the peer has failed or cannot be reached. */
  lose(reason: Error): void {
    if (this.#communicator.state === "none" && !this.#replies.isAwaited) return;
    this.#fail(reason).catch(() => {}); // `send` throws it, and the communicator has died
  }

  /** Repeats the last "aborted": the destination may have missed it while the channel was lost. */
  restore(): void {
    if (this.#epoch > 0) this.#tell({ from: "source", epoch: this.#epoch - 1, kind: "aborted" });
  }

  /** Ends the communicator of an idle pair. The next `send` makes a new one. */
  async close(leftMs: number): Promise<void> {
    const deadlineMs = performance.now() + leftMs;
    const previous = this.#turn;
    const end = Promise.withResolvers<void>();
    this.#turn = end.promise;
    try {
      await turnOf(this.#readyAfter(previous), deadlineMs).catch((error) => this.#fail(error));
      if (this.#communicator.state === "none") return;
      this.#say({ kind: "close", leftMs });
      await this.#communicator.close(deadlineMs);
      this.#epoch++;
      this.restore();
    } finally {
      previous.finally(end.resolve);
    }
  }

  /** Resolves after the previous transfer, and after an abort if one is running. */
  async #readyAfter(previous: Promise<void>): Promise<void> {
    await previous;
    await this.#failing?.catch(() => {});
  }

  async #sendNow(
    runs: readonly Run[],
    { note, signal }: SendOptions,
    deadlineMs: number,
  ): Promise<void> {
    const epoch = this.#epoch;
    const onAbort = () => this.lose(new TransferFailedError("the transfer was aborted"));
    signal?.addEventListener("abort", onAbort);
    try {
      if (this.#communicator.state === "none") await this.#open(deadlineMs);
      await this.#move(runs, note, deadlineMs);
    } catch (error) {
      if (error instanceof TransferRefusedError) throw error;
      if (this.#epoch === epoch) await this.#fail(error as Error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** The id is made last: an unused id holds a thread, a port and a descriptor. */
  async #open(deadlineMs: number): Promise<void> {
    this.#say({ kind: "prepare" });
    await this.#replies.take("ready", deadlineMs);
    await this.#communicator.open(null, deadlineMs, (id) => {
      this.#say({ kind: "open", id: id.toHex(), leftMs: deadlineMs - performance.now() });
    });
  }

  async #move(runs: readonly Run[], note: unknown, deadlineMs: number): Promise<void> {
    const number = this.#number++;
    const bytes = runs.map((run) => run.bytes);
    this.#say({ kind: "offer", number, bytes, note, leftMs: deadlineMs - performance.now() });
    const answer = await this.#replies.take("posting", deadlineMs, number);
    if (answer.kind === "refused") throw new TransferRefusedError(answer.reason);
    await this.#communicator.transfer(runs, deadlineMs);
    await this.#replies.take("done", deadlineMs, number);
  }

  #fail(reason: Error): Promise<void> {
    return this.#failing ??= this.#endEpoch(reason).finally(() => this.#failing = null);
  }

  /** Tells the destination first, so that both ends abort at once: NCCL's abort may wait for the peer's. */
  async #endEpoch(reason: Error): Promise<void> {
    const epoch = this.#epoch;
    this.#replies.fail(reason);
    this.#tell({ from: "source", epoch, kind: "fail", reason: reason.message });
    await this.#communicator.abort(reason);
    this.#replies = new Replies();
    this.#epoch++;
    this.restore();
  }

  #say(message: Outgoing<SourceMessage>): void {
    const whole = { from: "source", epoch: this.#epoch, ...message } as SourceMessage;
    this.#deliver(whole).catch((error) => this.lose(error));
  }

  /** For messages about a failure: the channel may be what failed. */
  #tell(message: SourceMessage): void {
    this.#deliver(message).catch(() => {});
  }

  // Async: a `post` that throws rejects.
  async #deliver(message: SourceMessage): Promise<void> {
    await this.#post(message);
  }
}

/** The destination's messages of the current epoch, for the one transfer that waits for them. */
class Replies {
  readonly #messages: DestinationMessage[] = [];
  #failure: Error | null = null;
  #wake: (() => void) | null = null;

  get isAwaited(): boolean {
    return this.#wake !== null;
  }

  put(message: DestinationMessage): void {
    // A transfer has three replies. A longer list can only come from a fault of the destination.
    if (this.#messages.length < 8) this.#messages.push(message);
    this.#wake?.();
  }

  fail(reason: Error): void {
    this.#failure ??= reason;
    this.#wake?.();
  }

  /** Waits for a message of a kind, about a transfer. "refused" also answers for "posting". */
  async take(
    kind: "ready" | "posting" | "done",
    deadlineMs: number,
    number?: number,
  ): Promise<DestinationMessage> {
    const isWanted = (message: DestinationMessage) =>
      (message.kind === kind || (kind === "posting" && message.kind === "refused")) &&
      ("number" in message ? message.number === number : true);
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      const found = this.#messages.findIndex(isWanted);
      if (found >= 0) return this.#messages.splice(found, 1)[0];
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) {
        const text = `the transfer's deadline has passed: the destination did not say "${kind}"`;
        throw new TransferFailedError(text);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => (clearTimeout(timer), resolve());
      });
      this.#wake = null;
    }
  }
}

/** @throws {RangeError} */
function checkRuns(runs: readonly Run[]): void {
  if (runs.length < 1 || runs.length > MAX_RUNS) {
    throw new RangeError(`${runs.length} runs in a transfer; expected 1 to ${MAX_RUNS}`);
  }
  for (const { bytes } of runs) {
    if (Number.isSafeInteger(bytes) && bytes >= 1) continue;
    throw new RangeError(`a run of ${bytes} bytes; expected a positive integer`);
  }
}

/** Waits for the previous transfer, up to the deadline. */
async function turnOf(
  previous: Promise<void>,
  deadlineMs: number,
  signal?: AbortSignal,
): Promise<void> {
  const giveUp = Promise.withResolvers<never>();
  const fail = (why: string) => giveUp.reject(new TransferFailedError(why));
  const timer = setTimeout(
    () => fail("the transfer's deadline has passed: an earlier transfer of the pair still runs"),
    deadlineMs - performance.now(),
  );
  const onAbort = () => fail("the transfer was aborted");
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) onAbort();
  try {
    await Promise.race([giveUp.promise, previous]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
