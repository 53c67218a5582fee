/**
 * Transfers between the device memories of two processes by NCCL, in both directions. Each direction has
 * its own communicator and stream, so that crossing transfers cannot block each other. The first transfer
 * makes them. `communicator.ts` has the rules for calls on one communicator. The rules between the two
 * ends are here, each proved by a mutant in `test/ffi/nccl/mutants.ts`:
 *
 * - Both ends agree on the epoch, the id, the transfer's number and the exact list of byte counts before
 *   they post. NCCL matches sends with receives by order alone: a mismatch hangs, or swaps data without
 *   an error. The sender is rank 0.
 * - One transfer at a time in a direction.
 * - The destination says "posting" when it has its runs, and posts at once. Neither end waits for a word
 *   that the other one has posted: NCCL waits for that itself.
 * - A transfer has succeeded when both ends say so: the source waits for the destination's "done".
 * - An error, a passed deadline, a failure of the peer or a lost channel ends the epoch: the end that
 *   notices tells the other one at once, and both abort. The next transfer makes a new id.
 * - After a failure the destination's runs are free when the aborts of both ends have returned, or the
 *   source's process is dead. If an abort does not return, the pair is dead and its runs stay claimed:
 *   restart the process.
 * - The id is made after the destination said that it is ready.
 */
import { Communicator, type CommunicatorOptions, type CommunicatorState } from "./communicator.ts";
import { TransferFailedError } from "./errors.ts";
import { type ClaimRuns, PairDestination } from "./pair_destination.ts";
import { type PairMessage, parseMessage } from "./pair_messages.ts";
import { PairSource, type SendOptions } from "./pair_source.ts";
import type { Run } from "./communicator.ts";

export type { EventCalls, NcclCalls, Run } from "./communicator.ts";
export type { Claim, ClaimRuns } from "./pair_destination.ts";
export type { PairMessage } from "./pair_messages.ts";
export type { SendOptions } from "./pair_source.ts";
export * from "./errors.ts";

export interface PairOptions extends Omit<CommunicatorOptions, "stream" | "rank"> {
  /** Streams of low priority, used by nothing else. */
  readonly sendStream: bigint;
  readonly receiveStream: bigint;
  /**
   * Sends a message to the other end of the control channel, which hands it to `receive`. Messages
   * arrive in order. Throws or rejects if the channel is lost.
   */
  readonly post: (message: PairMessage) => void | Promise<void>;
  /** Finds the runs for what the peer offers. */
  readonly claim: ClaimRuns;
}

/** This process's end of a pair. */
export class NcclPair {
  readonly #source: PairSource;
  readonly #destination: PairDestination;
  readonly #communicators: readonly [sending: Communicator, receiving: Communicator];

  constructor(options: PairOptions) {
    const { sendStream, receiveStream, post, claim } = options;
    const sending = new Communicator({ ...options, stream: sendStream, rank: 0 });
    const receiving = new Communicator({ ...options, stream: receiveStream, rank: 1 });
    this.#communicators = [sending, receiving];
    this.#source = new PairSource(sending, post);
    this.#destination = new PairDestination(receiving, post, claim);
  }

  /** Where the two directions stand. */
  get states(): { readonly sending: CommunicatorState; readonly receiving: CommunicatorState } {
    const [sending, receiving] = this.#communicators;
    return { sending: sending.state, receiving: receiving.state };
  }

  /** Resolves with the reason once the pair is dead: an abort did not return. */
  get died(): Promise<string> {
    return Promise.race(this.#communicators.map((communicator) => communicator.died));
  }

  /** As {@linkcode PairSource.send}. */
  send(runs: readonly Run[], options: SendOptions): Promise<void> {
    return this.#source.send(runs, options);
  }

  /**
   * Takes a message of the other end.
   * @throws {PairMessageError} no end sends such a message; nothing has changed
   */
  receive(data: unknown): void {
    const message = parseMessage(data);
    if (message.from === "source") this.#destination.receive(message);
    else this.#source.receive(message);
  }

  /** The channel or the peer's heartbeat is lost: both directions abort at once. */
  lose(reason: Error): void {
    this.#source.lose(reason);
    this.#destination.lose(reason);
  }

  /** Cancels the incoming transfer. Its runs are released as after a failure. */
  stopReceiving(reason: Error): void {
    this.#destination.lose(reason);
  }

  /** The channel works again. */
  restore(): void {
    this.#source.restore();
  }

  /** The peer's process is dead. Do not call this for a peer that is only silent. */
  peerDied(): void {
    this.#source.lose(new TransferFailedError("the destination is dead"));
    this.#destination.peerDied();
  }

  /** Ends the communicator for sending, after the transfers under way. A later `send` makes a new one. */
  closeSending(leftMs: number): Promise<void> {
    return this.#source.close(leftMs);
  }

  /** Ends both directions; an incoming transfer is aborted. @throws {PairDeadError} */
  async close(leftMs: number): Promise<void> {
    const reason = new TransferFailedError("the pair was closed");
    await Promise.all([this.#source.close(leftMs), this.#destination.close(reason)]);
  }
}
