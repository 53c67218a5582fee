import { OverloadedError, RequestError, UnavailableError } from "../../core/errors.ts";
import type { GenerateRequest } from "../../core/protocol/generate.ts";
import type { MigrateInRequest } from "../../core/protocol/migration.ts";
import type { MoveParts } from "./move_parts.ts";
import type { Sequence } from "./sequence.ts";

/** What the source tells of a request before it moves. */
export type IncomingRequest = Pick<
  MigrateInRequest,
  "requestId" | "arrivalMs" | "lengthTokens" | "isWaiting"
>;

/**
 * Room for a request that is about to move here: the destination's side of a migration, between the
 * engine's steps. Ends with {@linkcode adopt} or {@linkcode cancel}.
 */
export class IncomingMigration {
  readonly #parts: MoveParts;
  readonly #request: IncomingRequest;
  #blocks: number[] = [];
  #isOpen = true;

  /**
   * Keeps a place for the request among the running ones, unless it is a waiting request.
   * @throws {RequestError} the request can never be served here
   * @throws {OverloadedError} there is no room for it now
   * @throws {UnavailableError} the engine is closed or dead
   */
  constructor(parts: MoveParts, request: IncomingRequest) {
    this.#parts = parts;
    this.#request = request;
    const failure = parts.failure();
    if (failure !== null) throw new UnavailableError(failure);
    this.#refuseImpossible();
    if (request.isWaiting) this.#refuseOvertaking();
    else if (!parts.scheduler.keepPlace()) {
      throw new OverloadedError(
        `${parts.instanceId} runs as many sequences as it may (--max-num-seqs)`,
      );
    }
    parts.incoming.add(this);
  }

  /** Whether this migration keeps a place among the running sequences. */
  get keepsPlace(): boolean {
    return !this.#request.isWaiting;
  }

  /** Blocks taken so far, in the order of the request's block table. */
  get blocks(): readonly number[] {
    return this.#blocks;
  }

  /**
   * Takes more blocks: now, or when the running step has ended if it swaps sequences out, since
   * such a step still copies from blocks that are free.
   * @param done called once, with the new blocks, or with null if they would not leave the
   *   watermark
   */
  reserve(count: number, done: (blocks: readonly number[] | null) => void): void {
    const { blocks, scheduler } = this.#parts;
    this.#parts.betweenCopies(() => {
      const canReserve = this.#isOpen && this.#parts.failure() === null &&
        !scheduler.hasPendingCopies && blocks.canReserve(count);
      if (!canReserve) return done(null);
      const reserved = blocks.reserve(count);
      this.#blocks.push(...reserved);
      done(reserved);
    });
  }

  /**
   * Free blocks among which the next `count` reserved ones probably are. Running sequences may take
   * some before: one block each.
   * @param most limit of the result
   */
  upcoming(count: number, most: number): readonly number[] {
    const { blocks, scheduler } = this.#parts;
    return blocks.upcoming(Math.min(count + scheduler.running.length, most));
  }

  /**
   * Takes the request over. A running request continues in the next step, with the reserved blocks.
   * @throws {RequestError} it is not the announced request; {@linkcode cancel} has to follow
   */
  adopt(request: GenerateRequest): Sequence {
    const { blocks, scheduler } = this.#parts;
    const failure = this.#parts.failure();
    if (failure !== null) throw new UnavailableError(failure);
    const { requestId, isWaiting } = this.#request;
    const lengthTokens = request.promptTokenIds.length + request.outputTokenIds.length;
    const required = blocks.blocksFor(isWaiting ? lengthTokens : lengthTokens - 1);
    if (request.requestId !== requestId || this.#blocks.length !== required) {
      throw new RequestError(
        `${request.requestId} of ${lengthTokens} tokens needs ${required} blocks, but ` +
          `${this.#blocks.length} were reserved for ${requestId}`,
      );
    }
    const sequence = this.#parts.accept(request);
    this.#close();
    if (isWaiting) {
      blocks.cancelReservation(this.#blocks);
      scheduler.add(sequence);
    } else {
      blocks.adopt(sequence, this.#blocks);
      sequence.numComputedTokens = lengthTokens - 1;
      scheduler.giveUpPlace();
      scheduler.adopt(sequence);
    }
    this.#parts.changed();
    return sequence;
  }

  /** Gives up the place and the blocks, which no transfer may write any more. Idempotent. */
  cancel(): void {
    if (!this.#isOpen) return;
    this.#close();
    this.#parts.blocks.cancelReservation(this.#blocks);
    if (!this.#request.isWaiting) this.#parts.scheduler.giveUpPlace();
    this.#parts.changed();
  }

  #close(): void {
    this.#isOpen = false;
    this.#parts.incoming.delete(this);
  }

  #refuseImpossible(): void {
    const { instanceId, maxModelLen } = this.#parts;
    const { requestId, lengthTokens } = this.#request;
    if (this.#parts.has(requestId)) {
      throw new RequestError(`${requestId} is being served on ${instanceId} already`, "request_id");
    }
    if (lengthTokens >= maxModelLen) {
      throw new RequestError(
        `${requestId} has ${lengthTokens} tokens, and ${instanceId} serves at most ${maxModelLen}`,
      );
    }
  }

  /** A waiting request moves only to where it would be the next to run. */
  #refuseOvertaking(): void {
    const { instanceId, maxWaitingRequests, scheduler: { waiting, swapped } } = this.#parts;
    const { arrivalMs } = this.#request;
    if (swapped.length > 0 || waiting.some((other) => other.arrivalMs <= arrivalMs)) {
      throw new OverloadedError(`requests that arrived earlier wait on ${instanceId}`);
    }
    if (waiting.length >= maxWaitingRequests) {
      throw new OverloadedError(`${maxWaitingRequests} requests wait on ${instanceId}, its limit`);
    }
  }
}
