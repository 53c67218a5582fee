/** The receiving end of one direction of a pair. The rules are in `pair.ts`. */
import type { Communicator, Run } from "./communicator.ts";
import { TransferFailedError } from "./errors.ts";
import type { DestinationMessage, SourceMessage } from "./pair_messages.ts";

/** Memory that one transfer may write. */
export interface Claim {
  readonly runs: readonly Run[];
  /**
   * Called once, when NCCL can no longer write the runs: after a success; after a failure, when both ends
   * have aborted or the source's process is dead. Never called if the pair is dead.
   * @param isMoved true if all bytes are in place
   */
  release(isMoved: boolean): void;
}

/**
 * The runs for an offer of the source.
 * @param note of the source's `send`
 * @param bytes of each run, in order: the runs must have the same
 * @throws {Error} the offer is refused, for the reason of its message
 */
export type ClaimRuns = (note: unknown, bytes: readonly number[]) => Claim;

type Message<Kind> = Extract<SourceMessage, { readonly kind: Kind }>;
type Outgoing<M> = M extends unknown ? Omit<M, "from" | "epoch"> : never;

export class PairDestination {
  readonly #communicator: Communicator;
  readonly #post: (message: DestinationMessage) => void | Promise<void>;
  readonly #claim: ClaimRuns;
  #epoch = -1;
  /** The epoch has failed or was closed: its remaining messages are ignored. */
  #isOver = true;
  #lastNumber = -1;
  #isPeerDead = false;
  /** All epochs up to this one have ended at the source. */
  #sourceEnded = -1;
  #onSourceEnded: (() => void)[] = [];
  /** The source's messages are handled one after the other. */
  #work: Promise<void> = Promise.resolve();
  #failing: Promise<void> | null = null;

  constructor(
    communicator: Communicator,
    post: (message: DestinationMessage) => void | Promise<void>,
    claim: ClaimRuns,
  ) {
    this.#communicator = communicator;
    this.#post = post;
    this.#claim = claim;
  }

  receive(message: SourceMessage): void {
    const { epoch, kind } = message;
    if (kind === "aborted") return this.#noteSourceEnded(epoch);
    if (kind === "fail") {
      if (epoch === this.#epoch) this.lose(new TransferFailedError(message.reason));
      return;
    }
    this.#work = this.#work.then(() => this.#handle(message));
  }

  /** Ends the transfer under way and aborts: the peer has failed or is silent, or the owner cancels. */
  lose(reason: Error): void {
    if (!this.#isOver) this.#fail(reason).catch(() => {}); // the communicator has died
  }

  /** The source's process is dead, so it can no longer write. */
  peerDied(): void {
    this.#isPeerDead = true;
    this.lose(new TransferFailedError("the source is dead"));
    this.#wakeReleases();
  }

  /** Resolves when NCCL no longer reads or writes memory. @throws {PairDeadError} */
  async close(reason: Error): Promise<void> {
    this.lose(reason);
    await this.#work;
    await this.#communicator.abort(reason);
  }

  /** Never rejects. */
  async #handle(message: SourceMessage): Promise<void> {
    if (message.kind === "prepare") return await this.#prepare(message.epoch);
    if (message.epoch !== this.#epoch || this.#isOver) return;
    try {
      if (message.kind === "open") await this.#open(message);
      else if (message.kind === "offer") await this.#receiveOffer(message);
      else if (message.kind === "close") await this.#close(message.leftMs);
    } catch (error) {
      await this.#fail(error as Error).catch(() => {}); // the communicator has died
    }
  }

  async #prepare(epoch: number): Promise<void> {
    if (epoch <= this.#epoch) return;
    this.#noteSourceEnded(epoch - 1);
    try {
      await this.#fail(new TransferFailedError("the source began again"));
    } catch (error) {
      return this.#tell({ from: "destination", epoch, kind: "fail", reason: String(error) });
    }
    this.#epoch = epoch;
    this.#isOver = false;
    this.#say({ kind: "ready" });
  }

  async #open({ id, leftMs }: Message<"open">): Promise<void> {
    await this.#communicator.open(Uint8Array.fromHex(id), performance.now() + leftMs);
  }

  async #receiveOffer({ epoch, number, bytes, note, leftMs }: Message<"offer">): Promise<void> {
    const deadlineMs = performance.now() + leftMs;
    if (number <= this.#lastNumber) {
      throw new TransferFailedError(`transfer ${number} was offered after ${this.#lastNumber}`);
    }
    this.#lastNumber = number;
    let claim: Claim;
    try {
      claim = this.#claim(note, bytes);
    } catch (error) {
      return this.#say({ kind: "refused", number, reason: (error as Error).message });
    }
    const difference = differenceOf(bytes, claim.runs);
    if (difference !== null) {
      claim.release(false);
      return this.#say({ kind: "refused", number, reason: difference });
    }
    this.#say({ kind: "posting", number });
    try {
      await this.#communicator.transfer(claim.runs, deadlineMs);
    } catch (error) {
      void this.#releaseLater(claim, epoch, this.#fail(error as Error));
      return;
    }
    claim.release(true);
    this.#say({ kind: "done", number });
  }

  /** Releases the runs when this end has aborted, and the source said so too or is dead. */
  async #releaseLater(claim: Claim, epoch: number, aborted: Promise<void>): Promise<void> {
    try {
      await aborted;
    } catch {
      return;
    }
    while (this.#sourceEnded < epoch && !this.#isPeerDead) {
      await new Promise<void>((resolve) => this.#onSourceEnded.push(resolve));
    }
    claim.release(false);
  }

  async #close(leftMs: number): Promise<void> {
    this.#isOver = true;
    await this.#communicator.close(performance.now() + leftMs);
  }

  #fail(reason: Error): Promise<void> {
    return this.#failing ??= this.#endEpoch(reason).finally(() => this.#failing = null);
  }

  async #endEpoch(reason: Error): Promise<void> {
    const epoch = this.#epoch;
    if (!this.#isOver) {
      this.#isOver = true;
      this.#tell({ from: "destination", epoch, kind: "fail", reason: reason.message });
    }
    await this.#communicator.abort(reason);
  }

  #noteSourceEnded(epoch: number): void {
    this.#sourceEnded = Math.max(this.#sourceEnded, epoch);
    this.#wakeReleases();
  }

  #wakeReleases(): void {
    for (const wake of this.#onSourceEnded.splice(0)) wake();
  }

  #say(message: Outgoing<DestinationMessage>): void {
    const whole = { from: "destination", epoch: this.#epoch, ...message } as DestinationMessage;
    this.#deliver(whole).catch((error) => this.lose(error));
  }

  /** For messages about a failure: the channel may be what failed. */
  #tell(message: DestinationMessage): void {
    this.#deliver(message).catch(() => {});
  }

  // Async: a `post` that throws rejects.
  async #deliver(message: DestinationMessage): Promise<void> {
    await this.#post(message);
  }
}

/** How an offer and the runs for it differ; null if they agree. */
function differenceOf(bytes: readonly number[], runs: readonly Run[]): string | null {
  if (bytes.length !== runs.length) return `${bytes.length} runs were offered for ${runs.length}`;
  const i = bytes.findIndex((count, i) => count !== runs[i].bytes);
  return i < 0 ? null : `run ${i}: ${bytes[i]} bytes were offered for ${runs[i].bytes}`;
}
