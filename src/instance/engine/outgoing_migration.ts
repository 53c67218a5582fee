import type { GenerateRequest, OwnershipEpoch, RequestId } from "../../core/protocol/generate.ts";
import type { MoveParts } from "./move_parts.ts";
import type { Sequence } from "./sequence.ts";

/** Why a request can leave no more: it ended here, was preempted, or the scheduler has admitted it. */
export type OutgoingLoss = "ended" | "preempted" | "admitted";

/**
 * A request that is about to leave: the source's side of a migration, between the engine's steps.
 * Until {@linkcode release} the request is this instance's, may end at any moment, and while it is
 * not suspended it runs as ever.
 */
export class OutgoingMigration {
  readonly requestId: RequestId;
  /** It waits, and has no blocks. */
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

  /** Null while it can leave. */
  get loss(): OutgoingLoss | null {
    const { status, numPreemptions } = this.#sequence;
    if (status === "finished") return "ended";
    if (numPreemptions !== this.#numPreemptions) return "preempted";
    return this.isWaiting && status === "running" ? "admitted" : null;
  }

  /** It does not run until it has left. */
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

  /** Entries of its block table. */
  get numBlocks(): number {
    return this.#sequence.blocks.length;
  }

  /** Blocks that all its tokens take when it waits. */
  get numRequiredBlocks(): number {
    return this.#parts.blocks.blocksFor(this.lengthTokens);
  }

  /**
   * How many of them, from the first on, no step changes any more: full blocks whose tokens are all
   * computed. The newest token is in no block yet.
   */
  get numSettledBlocks(): number {
    return Math.floor(this.#sequence.numComputedTokens / this.#parts.blocks.blockSize);
  }

  /**
   * Keeps entries [from, to) of the block table from being reused until {@linkcode unpin}, whatever
   * becomes of the request.
   * @param onLoss nobody wants them any more: others may wait for them
   */
  pin(from: number, to: number, onLoss?: () => void): readonly number[] {
    if (this.#pinned.length > 0) throw new Error(`${this.requestId}: a transfer is under way`);
    this.#pinned = this.#sequence.blocks.slice(from, to);
    this.#parts.blocks.retain(this.#pinned);
    this.#sequence.onLoss = onLoss ?? null;
    return this.#pinned;
  }

  /** Nothing reads the pinned blocks any more. */
  unpin(): void {
    this.#sequence.onLoss = null;
    this.#parts.blocks.release(this.#pinned);
    this.#pinned = [];
    this.#parts.changed();
  }

  /**
   * Takes it out of its queue: now, or when the step that it is in has ended.
   * @param done called once, at that moment; false when it can leave no more
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

  /** Puts it back where it was taken from, if it has not ended meanwhile. */
  resume(epoch: OwnershipEpoch = this.epoch): void {
    if (!this.isSuspended) return;
    this.#parts.scheduler.resume(this.#sequence);
    if (epoch !== this.epoch) {
      this.#sequence.epoch = epoch;
      this.#parts.announce(this.#sequence);
    }
    this.#parts.changed();
  }

  /** All that another instance needs to go on with it. */
  snapshot(epoch: OwnershipEpoch): GenerateRequest {
    const { requestId, frontendId, promptTokenIds, params } = this.#sequence;
    const { arrivalMs, priority, wantsTimestamps } = this.#sequence;
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
    };
  }

  /**
   * It is another instance's from now on: drops it and its blocks without an output.
   * @returns false when it has ended here meanwhile
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
