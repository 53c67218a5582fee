import type { OutputSink } from "../core/cluster.ts";
import type { ErrorRecord } from "../core/errors.ts";
import {
  type Finish,
  type GenerateRequest,
  type OwnershipEpoch,
  type Priority,
  type RequestId,
  type RequestOutput,
  RESUME_EPOCH,
} from "../core/protocol/generate.ts";
import type { InstanceLink } from "./instance_link.ts";
import { OutputOrder } from "./output_order.ts";

/**
 * One request of an API server, from `submit` to its finish: who owns it, and what was delivered of
 * it, which is all that another instance needs to go on with it.
 */
export class ClientRequest {
  /** The instance that has it, or is about to; null between two of them. */
  #link: InstanceLink | null = null;
  #epoch: OwnershipEpoch;
  /** An instance is being found for it. */
  isBeingPlaced = false;
  /** Why its owner lost it while it was being placed there. */
  lostReason: string | null = null;
  /** How often it went on elsewhere after its owner had lost it. */
  numResumptions = 0;
  /** The instance that it was last given to was lost before it could answer. */
  isLostOnArrival = false;
  /** When it was last given to an instance. */
  givenMs = -Infinity;
  /** When its owner last sent tokens of it. */
  progressedMs = -Infinity;
  /** The first time of that since it was last given to an instance; until then it may queue. */
  firstProgressMs = Infinity;
  /** Instances lost in a row soon after they got it. See `Suspects`. */
  fruitlessLosses = 0;
  /** It was last given to an instance while no other suspect was. */
  isTried = false;
  /** Those of the losses that came then. */
  failedTrials = 0;
  #wasGiven = false;
  #indexWhenGiven = 0;
  readonly #deliveredTokenIds: number[] = [];
  readonly #order: OutputOrder;
  /** What was delivered before {@linkcode open}; null after it. */
  #held: RequestOutput[] | null = [];

  constructor(private readonly request: GenerateRequest, private readonly sink: OutputSink) {
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

  get epoch(): OwnershipEpoch {
    return this.#epoch;
  }

  /** Index of the next token to deliver. */
  get nextIndex(): number {
    return this.#order.nextIndex;
  }

  /** Tokens have come that cannot be delivered before others. */
  get hasGap(): boolean {
    return this.#order.hasGap;
  }

  /** Its finish was delivered, or it was aborted. */
  get hasEnded(): boolean {
    return this.#order.hasEnded;
  }

  /** Every token that it may have was delivered; only its finish is missing. */
  get isComplete(): boolean {
    return this.nextIndex >= this.request.params.maxTokens;
  }

  /** Tokens were delivered since it was last given to an instance. */
  get hasProgressed(): boolean {
    return this.nextIndex > this.#indexWhenGiven;
  }

  /** An instance has it under an epoch, or none has. */
  own(link: InstanceLink | null, epoch: OwnershipEpoch): void {
    this.#link?.requests.delete(this);
    this.#link = link;
    this.#epoch = epoch;
    if (link !== null) this.lostReason = null;
    link?.requests.add(this);
  }

  /**
   * Makes an instance the owner, under an epoch above all former owners'.
   * @param expectedSteps after which it is to leave there; undefined for none
   * @returns what to send there: the request with all tokens that were delivered
   */
  giveTo(link: InstanceLink, expectedSteps?: number): GenerateRequest {
    const isFirst = !this.#wasGiven;
    this.#wasGiven = true;
    this.firstProgressMs = Infinity;
    this.#indexWhenGiven = this.nextIndex;
    if (isFirst) {
      this.own(link, this.#epoch);
      return { ...this.request, expectedSteps };
    }
    this.own(link, (Math.floor(this.#epoch / RESUME_EPOCH) + 1) * RESUME_EPOCH);
    const { params, outputTokenIds } = this.request;
    const hasStarted = this.#deliveredTokenIds.length > 0;
    return {
      ...this.request,
      outputTokenIds: [...outputTokenIds, ...this.#deliveredTokenIds],
      params: hasStarted ? { ...params, promptLogprobs: null } : params, // those were delivered
      epoch: this.#epoch,
      expectedSteps,
    };
  }

  /** Its owner sent tokens of it. */
  noteProgress(nowMs: number): void {
    this.progressedMs = nowMs;
    this.firstProgressMs = Math.min(this.firstProgressMs, nowMs);
  }

  accept(output: RequestOutput): void {
    this.#order.accept(output);
  }

  /** Ends it behind whatever was delivered. */
  finish(finish: Finish): void {
    this.accept({ requestId: this.requestId, index: this.nextIndex, tokenIds: [], finish });
  }

  fail(error: ErrorRecord): void {
    this.finish({ reason: "error", error });
  }

  /** Hands on what has come, and from now on what comes. */
  open(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const output of held) this.sink(output);
  }

  /** The sink is never called again. */
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
