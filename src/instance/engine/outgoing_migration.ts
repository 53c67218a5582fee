import type { GenerateRequest, OwnershipEpoch, RequestId } from "../../core/protocol/generate.ts";
import type { MoveParts } from "./move_parts.ts";
import type { Sequence } from "./sequence.ts";

/** Why a request cannot move any more: it ended, was preempted, or (if it waited) was admitted. */
export type OutgoingLoss = "ended" | "preempted" | "admitted";

/**
 * A request that is about to move away: the source's side of a migration, between the engine's
 * steps. Until {@linkcode release} this instance owns the request. The request may end at any time,
 * and it runs as usual except while it is suspended.
 */
export class OutgoingMigration {
  readonly requestId: RequestId;
  /** The request waits in the queue and has no blocks. */
  readonly isWaiting: boolean;
  readonly #parts: MoveParts;
  readonly #sequence: Sequence;
  readonly #numPreemptions: number;
  #pinned: readonly number[] = [];

  constructor(parts: MoveParts, sequence: Sequence) {
    this.requestId = sequence.requestId;
    this.isWaiting = sequence.status === "waiting";
    this.#parts = parts;
    this.#sequence = sequence;
    this.#numPreemptions = sequence.numPreemptions;
  }

  /** Null while the request can move. */
  get loss(): OutgoingLoss | null {
    const { status, numPreemptions } = this.#sequence;
    if (status === "finished") return "ended";
    if (numPreemptions !== this.#numPreemptions) return "preempted";
    return this.isWaiting && status === "running" ? "admitted" : null;
  }

  /** The scheduler does not run the request here any more: see {@linkcode Sequence.isHeld}. */
  get isHeld(): boolean {
    return this.#sequence.isHeld;
  }

  get isSuspended(): boolean {
    return this.#sequence.status === "suspended";
  }

  get arrivalMs(): number {
    return this.#sequence.arrivalMs;
  }

  get epoch(): OwnershipEpoch {
    return this.#sequence.epoch;
  }

  get lengthTokens(): number {
    return this.#sequence.lengthTokens;
  }

  /** Length of its block table. */
  get numBlocks(): number {
    return this.#sequence.blocks.length;
  }

  /** Blocks that the request needs where it waits and is computed again. */
  get numRequiredBlocks(): number {
    return this.#parts.blocks.blocksFor(this.lengthTokens);
  }

  /**
   * Number of leading blocks that no step changes any more: they are full, and all their tokens are
   * computed. The newest token is in no block yet.
   */
  get numSettledBlocks(): number {
    return Math.floor(this.#sequence.numComputedTokens / this.#parts.blocks.blockSize);
  }

  /**
   * Keeps entries [from, to) of the block table from being reused until {@linkcode unpin}, even if
   * the request ends.
   * @param onLoss called if the request ends or is preempted: the transfer is pointless, and other
   *   requests may need the blocks
   */
  pin(from: number, to: number, onLoss?: () => void): readonly number[] {
    if (this.#pinned.length > 0) throw new Error(`${this.requestId}: a transfer is under way`);
    this.#pinned = this.#sequence.blocks.slice(from, to);
    this.#parts.blocks.retain(this.#pinned);
    this.#sequence.onLoss = onLoss ?? null;
    return this.#pinned;
  }

  /** The transfer does not read the pinned blocks any more. */
  unpin(): void {
    this.#sequence.onLoss = null;
    this.#parts.blocks.release(this.#pinned);
    this.#pinned = [];
    this.#parts.changed();
  }

  /**
   * Takes the request out of its queue: now, or when the step that computes it has ended.
   * @param done called once, at that moment; with false if the request cannot move any more
   */
  suspend(done: (isSuspended: boolean) => void): void {
    const suspend = () => {
      if (this.loss !== null) return done(false);
      this.#parts.scheduler.suspend(this.#sequence);
      this.#parts.changed();
      done(true);
    };
    if (this.#sequence.isInStep) this.#parts.betweenSteps(suspend);
    else suspend();
  }

  /** Puts a suspended request back into its queue. A new epoch is announced. */
  resume(epoch: OwnershipEpoch = this.epoch): void {
    if (!this.isSuspended) return;
    this.#parts.scheduler.resume(this.#sequence);
    if (epoch !== this.epoch) {
      this.#sequence.epoch = epoch;
      this.#parts.announce(this.#sequence);
    }
    this.#parts.changed();
  }

  /** All that another instance needs to continue the request. */
  snapshot(epoch: OwnershipEpoch): GenerateRequest {
    const { requestId, frontendId, promptTokenIds, params } = this.#sequence;
    const { arrivalMs, priority, wantsTimestamps, holdMs } = this.#sequence;
    return {
      requestId,
      frontendId,
      promptTokenIds,
      outputTokenIds: [...this.#sequence.outputTokenIds],
      params,
      arrivalMs,
      priority,
      epoch,
      timestamps: wantsTimestamps,
      ...(holdMs !== undefined && { holdMs }),
    };
  }

  /**
   * Gives the request to its new owner: drops it and its blocks here, without an output.
   * @returns false if the request has ended here meanwhile
   */
  release(): boolean {
    if (!this.isSuspended) return false;
    const { scheduler, blocks } = this.#parts;
    scheduler.remove(this.#sequence);
    blocks.free(this.#sequence);
    this.#sequence.status = "finished";
    this.#parts.forget(this.#sequence);
    this.#parts.changed();
    return true;
  }
}
