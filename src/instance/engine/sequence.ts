import type {
  GenerateRequest,
  OwnershipEpoch,
  Priority,
  RequestId,
  SamplingParams,
} from "../../core/protocol/generate.ts";

/**
 * `waiting`: has no blocks. `running`: has blocks in the device pool. `swapped`: has blocks in the
 * swap pool. `suspended`: taken out of the waiting or running queue, with its blocks, because it is
 * about to move to another instance. `finished`: no longer on this instance.
 */
export type SequenceStatus = "waiting" | "running" | "swapped" | "suspended" | "finished";

/** A request on the instance that owns it. */
export class Sequence {
  readonly requestId: RequestId;
  readonly frontendId: string;
  readonly params: SamplingParams;
  readonly arrivalMs: number;
  readonly priority: Priority;
  readonly wantsTimestamps: boolean;
  /** See {@linkcode GenerateRequest.holdMs}. */
  readonly holdMs: number | undefined;
  /** 0 for high priority, 1 for normal. */
  readonly #rank: number;
  readonly promptTokenIds: readonly number[];
  readonly #outputTokenIds: number[];
  #lengthTokens: number;
  /** The ownership epoch. */
  epoch: OwnershipEpoch;
  status: SequenceStatus = "waiting";
  /** Block table; while swapped, of the swap pool. Only the block manager changes it. */
  readonly blocks: number[] = [];
  /** Tokens whose keys and values are in the device blocks. Grows when steps end. */
  numComputedTokens = 0;
  /** The sequence runs, and more of its prompt must be computed before it decodes. */
  isPrefilling = false;
  /** Steps after which the request moves to another instance; null: it stays. */
  expectedSteps: number | null;
  /** Steps of this instance that computed the sequence. */
  numSteps = 0;
  /** When the scheduler first held the sequence back after its expected steps. */
  heldSinceMs: number | null = null;
  /** No destination took the sequence in time: it runs on here. */
  hasHoldExpired = false;
  /** The executor's number for the sequence; null while the executor does not know it. */
  handle: number | null = null;
  /** Was preempted and has not run since. */
  isPreempted = false;
  /** How often it was preempted here. */
  numPreemptions = 0;
  /** The scheduler has tried to admit the sequence. */
  wasTried = false;
  /** Called when the sequence ends or is preempted. */
  onLoss: (() => void) | null = null;
  /** When its first step at this instance began; null before. */
  startedMs: number | null = null;
  /** Steps under way that compute the sequence: each reads and writes its blocks, and adds a token. */
  numStepsUnderWay = 0;

  /** @param order number of requests accepted before; decides between equal arrival times */
  constructor(request: GenerateRequest, readonly order: number) {
    this.requestId = request.requestId;
    this.frontendId = request.frontendId;
    this.params = request.params;
    this.arrivalMs = request.arrivalMs;
    this.priority = request.priority ?? "normal";
    this.wantsTimestamps = request.timestamps ?? false;
    this.holdMs = request.holdMs;
    this.#rank = this.priority === "high" ? 0 : 1;
    this.promptTokenIds = request.promptTokenIds;
    this.#outputTokenIds = [...request.outputTokenIds];
    this.#lengthTokens = request.promptTokenIds.length + request.outputTokenIds.length;
    this.epoch = request.epoch ?? 0;
    this.expectedSteps = request.expectedSteps ?? null;
  }

  /** All output so far, also what earlier owners produced. */
  get outputTokenIds(): readonly number[] {
    return this.#outputTokenIds;
  }

  /** Tokens of prompt and output. The newest output token is not in the KV cache yet. */
  get lengthTokens(): number {
    return this.#lengthTokens;
  }

  /** Adds the token that a step produced. */
  append(tokenId: number): void {
    this.#outputTokenIds.push(tokenId);
    this.#lengthTokens++;
  }

  /** A step is under way that computes the sequence. */
  get isInStep(): boolean {
    return this.numStepsUnderWay > 0;
  }

  /** The sequence has run as many steps as it may on this (prefill) instance. */
  get hasReachedExpectedSteps(): boolean {
    return this.expectedSteps !== null && this.numSteps >= this.expectedSteps;
  }

  /** The sequence waits to move, and does not run. */
  get isHeld(): boolean {
    return this.hasReachedExpectedSteps && !this.hasHoldExpired;
  }

  /** The newest token: the input of the next decode step. */
  get lastTokenId(): number {
    const { outputTokenIds, promptTokenIds } = this;
    return outputTokenIds.length > 0
      ? outputTokenIds[outputTokenIds.length - 1]
      : promptTokenIds[promptTokenIds.length - 1];
  }

  /** This sequence has a higher priority than `other`. */
  outranks(other: Sequence): boolean {
    return this.#rank < other.#rank;
  }

  /**
   * Order of turns: high priority first, then by arrival. Negative if this sequence comes before
   * `other`.
   */
  compareTurn(other: Sequence): number {
    return this.#rank - other.#rank || this.arrivalMs - other.arrivalMs || this.order - other.order;
  }
}
