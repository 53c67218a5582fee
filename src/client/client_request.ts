import type { OutputSink, SubmittedRequest } from "../core/cluster.ts";
import type { ErrorRecord } from "../core/errors.ts";
import {
  type Finish,
  type InstanceId,
  nextResumeEpoch,
  type OwnershipEpoch,
  type Priority,
  type RequestId,
  type RequestOutput,
} from "../core/protocol/generate.ts";
import type { InstanceLink } from "./instance_link.ts";
import { OutputOrder } from "./output_order.ts";

/**
 * One request of an API server, from `submit` to its finish: which instance owns it, and which
 * tokens were delivered. Another instance needs nothing else to resume it.
 */
export class ClientRequest {
  /** The instance that has the request or is about to get it; null between two instances. */
  #link: InstanceLink | null = null;
  #lastInstanceId: InstanceId | null = null;
  #epoch: OwnershipEpoch;
  /** The client is looking for an instance, or waits for the instance's answer. */
  isBeingPlaced = false;
  /** Why the owner lost the request while it was being placed there. */
  lostReason: string | null = null;
  /** How often the request was resumed after its owner had lost it. */
  numResumptions = 0;
  /** The last instance that was given the request was lost before it answered. */
  isLostOnArrival = false;
  /** When the request was last given to an instance. */
  givenMs = -Infinity;
  /** When its owner last sent tokens of it. */
  progressedMs = -Infinity;
  /** When its owner first sent tokens since then; before that it may wait in a queue. */
  firstProgressMs = Infinity;
  #wasGiven = false;
  #indexWhenGiven = 0;
  readonly #deliveredTokenIds: number[] = [];
  readonly #order: OutputOrder;
  /** Outputs that came before {@linkcode open} was called; null afterwards. */
  #held: RequestOutput[] | null = [];

  constructor(private readonly request: SubmittedRequest, private readonly sink: OutputSink) {
    this.#epoch = request.epoch ?? 0;
    this.#order = new OutputOrder(request.outputTokenIds.length, (output) => this.#hand(output));
  }

  get requestId(): RequestId {
    return this.request.requestId;
  }

  get promptTokens(): number {
    return this.request.promptTokenIds.length;
  }

  get arrivalMs(): number {
    return this.request.arrivalMs;
  }

  get priority(): Priority {
    return this.request.priority ?? "normal";
  }

  get link(): InstanceLink | null {
    return this.#link;
  }

  /** The instance that has the request, else the last one that had it. */
  get lastInstanceId(): InstanceId | null {
    return this.#lastInstanceId;
  }

  get epoch(): OwnershipEpoch {
    return this.#epoch;
  }

  /** Index of the next token to deliver. */
  get nextIndex(): number {
    return this.#order.nextIndex;
  }

  /** Tokens arrived that cannot be delivered yet, because earlier ones are missing. */
  get hasGap(): boolean {
    return this.#order.hasGap;
  }

  /** The finish was delivered, or the request was aborted. */
  get hasEnded(): boolean {
    return this.#order.hasEnded;
  }

  /** All tokens up to `maxTokens` were delivered; only the finish is missing. */
  get isComplete(): boolean {
    return this.nextIndex >= this.request.params.maxTokens;
  }

  /** Tokens were delivered since the request was last given to an instance. */
  get hasProgressed(): boolean {
    return this.nextIndex > this.#indexWhenGiven;
  }

  /** Makes an instance the owner under `epoch`; null: no instance has the request. */
  own(link: InstanceLink | null, epoch: OwnershipEpoch): void {
    this.#link?.requests.delete(this);
    this.#link = link;
    this.#epoch = epoch;
    if (link !== null) {
      this.lostReason = null;
      this.#lastInstanceId = link.instanceId;
    }
    link?.requests.add(this);
  }

  /**
   * Makes an instance the owner, under an epoch above those of all owners before it.
   * @param expectedSteps steps after which the request moves on to another instance; default: it
   *   stays
   * @returns the message for the instance: the request with all tokens that were delivered
   */
  giveTo(link: InstanceLink, expectedSteps?: number): SubmittedRequest {
    const isFirst = !this.#wasGiven;
    this.#wasGiven = true;
    this.firstProgressMs = Infinity;
    this.#indexWhenGiven = this.nextIndex;
    if (isFirst) {
      this.own(link, this.#epoch);
      return { ...this.request, expectedSteps };
    }
    this.own(link, nextResumeEpoch(this.#epoch));
    const { params, outputTokenIds } = this.request;
    const hasStarted = this.#deliveredTokenIds.length > 0;
    return {
      ...this.request,
      outputTokenIds: [...outputTokenIds, ...this.#deliveredTokenIds],
      params: hasStarted ? { ...params, promptLogprobs: null } : params, // already delivered
      epoch: this.#epoch,
      expectedSteps,
    };
  }

  /** The owner sent tokens of the request. */
  noteProgress(nowMs: number): void {
    this.progressedMs = nowMs;
    this.firstProgressMs = Math.min(this.firstProgressMs, nowMs);
  }

  accept(output: RequestOutput): void {
    this.#order.accept(output);
  }

  /** Ends the request after the tokens that were delivered. */
  finish(finish: Finish): void {
    this.accept({ requestId: this.requestId, index: this.nextIndex, tokenIds: [], finish });
  }

  fail(error: ErrorRecord): void {
    this.finish({ reason: "error", error });
  }

  /** Passes the outputs so far to the sink, and from now on each output at once. */
  open(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const output of held) this.sink(output);
  }

  /** Ends the request; the sink is not called any more. */
  abort(): void {
    this.#held = [];
    this.#order.stop();
  }

  #hand(output: RequestOutput): void {
    for (const tokenId of output.tokenIds) this.#deliveredTokenIds.push(tokenId);
    if (this.#held === null) this.sink(output);
    else this.#held.push(output);
  }
}
