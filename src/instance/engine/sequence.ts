import type {
  GenerateRequest,
  OwnershipEpoch,
  Priority,
  RequestId,
  SamplingParams,
} from "../../core/protocol/generate.ts";

/**
 * `waiting`: no blocks; `running`: blocks in the device pool; `swapped`: blocks in the swap pool;
 * `suspended`: taken out of the waiting or the running ones, with the blocks it had, because it is
 * about to leave the instance; `finished`: not here any more.
 */
export type SequenceStatus = "waiting" | "running" | "swapped" | "suspended" | "finished";

/** A request while an instance owns it. */
export class Sequence {
  readonly requestId: RequestId;
  readonly frontendId: string;
  readonly params: SamplingParams;
  readonly arrivalMs: number;
  readonly priority: Priority;
  readonly wantsTimestamps: boolean;
  /** By priority. */
  readonly #rank: number;
  readonly promptTokenIds: readonly number[];
  readonly #outputTokenIds: number[];
  #lengthTokens: number;
  /** Under which this instance owns it. */
  epoch: OwnershipEpoch;
  status: SequenceStatus = "waiting";
  /** Block table; of the swap pool while swapped. Only the block manager changes it. */
  readonly blocks: number[] = [];
  /** Tokens whose keys and values are in the device blocks for good; grows as steps end. */
  numComputedTokens = 0;
  /** Steps after which it is to leave this instance; null: it stays. */
  expectedSteps: number | null;
  /** Steps that it has taken part in here. */
  numSteps = 0;
  /** When the scheduler first held it back because it is to leave. */
  heldSinceMs: number | null = null;
  /** It could not leave for so long that it goes on here meanwhile. */
  hasHoldExpired = false;
  /** The executor's name for it; null while the executor does not know it. */
  handle: number | null = null;
  /** Was preempted and does not run again yet. */
  isPreempted = false;
  /** How often it was preempted here. */
  numPreemptions = 0;
  /** The scheduler has tried to admit it. */
  wasTried = false;
  /** Told when it ends or is preempted here. */
  onLoss: (() => void) | null = null;
  /** Belongs to the step that the executor runs now: its blocks are being read and written. */
  isInStep = false;

  /** @param order position among all requests that the instance accepted; breaks ties of arrival */
  constructor(request: GenerateRequest, readonly order: number) {
    this.requestId = request.requestId;
    this.frontendId = request.frontendId;
    this.params = request.params;
    this.arrivalMs = request.arrivalMs;
    this.priority = request.priority ?? "normal";
    this.wantsTimestamps = request.timestamps ?? false;
    this.#rank = this.priority === "high" ? 0 : 1;
    this.promptTokenIds = request.promptTokenIds;
    this.#outputTokenIds = [...request.outputTokenIds];
    this.#lengthTokens = request.promptTokenIds.length + request.outputTokenIds.length;
    this.epoch = request.epoch ?? 0;
    this.expectedSteps = request.expectedSteps ?? null;
  }

  /** Everything produced so far, here or elsewhere before. */
  get outputTokenIds(): readonly number[] {
    return this.#outputTokenIds;
  }

  /** Tokens of prompt and output. The newest output token is not in the KV cache yet. */
  get lengthTokens(): number {
    return this.#lengthTokens;
  }

  /** Takes the token that a step has produced. */
  append(tokenId: number): void {
    this.#outputTokenIds.push(tokenId);
    this.#lengthTokens++;
  }

  /** It has run as many steps as it may here. */
  get hasReachedExpectedSteps(): boolean {
    return this.expectedSteps !== null && this.numSteps >= this.expectedSteps;
  }

  /** It waits to leave, and does not run. */
  get isHeld(): boolean {
    return this.hasReachedExpectedSteps && !this.hasHoldExpired;
  }

  /** The newest token: what a decode step feeds in. */
  get lastTokenId(): number {
    const { outputTokenIds, promptTokenIds } = this;
    return outputTokenIds.length > 0
      ? outputTokenIds[outputTokenIds.length - 1]
      : promptTokenIds[promptTokenIds.length - 1];
  }

  /** Its priority is higher than that of `other`. */
  outranks(other: Sequence): boolean {
    return this.#rank < other.#rank;
  }

  /**
   * High priority first, then first come, first served: negative when this one's turn comes before
   * that of `other`.
   */
  compareTurn(other: Sequence): number {
    return this.#rank - other.#rank || this.arrivalMs - other.arrivalMs || this.order - other.order;
  }
}
