import type { Clock } from "../core/clock.ts";
import {
  type Finish,
  type GenerateRequest,
  type HeldRequest,
  nextResumeEpoch,
  type OwnershipEpoch,
  type RequestId,
  type RequestOutput,
} from "../core/protocol/generate.ts";

/** Most requests that are held after their end, and tokens of all of them together. */
const MAX_HELD = 4096;
const MAX_HELD_TOKENS = 4 << 20;

/** A request that asked to be held. */
interface Entry {
  readonly requestId: RequestId;
  readonly frontendId: string;
  readonly holdMs: number;
  readonly seed: number;
  readonly arrivalMs: number;
  readonly tokenIds: number[];
  epoch: OwnershipEpoch;
  finish: Finish | undefined;
  /** Ends the hold; null while the request runs here. */
  cancelDeadline: (() => void) | null;
}

/** What a request that is taken away leaves behind. */
export interface Taken extends HeldRequest {
  /** The API server that had the request. */
  readonly frontendId: string;
  /** The epoch under which that API server knows it. */
  readonly ownerEpoch: OwnershipEpoch;
}

/** Bounds of {@linkcode HeldRequests}, for tests. */
export interface HoldLimits {
  readonly maxRequests: number;
  readonly maxTokens: number;
}

/**
 * The output of requests that asked to be held (`holdMs`): another API server takes it and resumes
 * the request, if the first one dies or its client comes back over another connection.
 *
 * Only tokens are held. The request itself ends as any other does when its API server is gone, so
 * that nothing is computed for a client that may never come back. A request that has ended is
 * forgotten after its `holdMs`; of too many, the one that ended first is forgotten first.
 */
export class HeldRequests {
  readonly #clock: Clock;
  readonly #limits: HoldLimits;
  readonly #entries = new Map<RequestId, Entry>();
  /** Those that have ended, in the order of their ends. */
  readonly #ended = new Set<Entry>();
  #endedTokens = 0;

  constructor(
    clock: Clock,
    limits: HoldLimits = { maxRequests: MAX_HELD, maxTokens: MAX_HELD_TOKENS },
  ) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** False: no output concerns this object. */
  get hasAny(): boolean {
    return this.#entries.size > 0;
  }

  /** A request is about to run here. Without `holdMs` nothing happens. */
  begin(request: GenerateRequest): void {
    const { requestId, frontendId, holdMs, params, arrivalMs, outputTokenIds, epoch = 0 } = request;
    if (holdMs === undefined) return;
    this.forget(requestId);
    this.#entries.set(requestId, {
      requestId,
      frontendId,
      holdMs,
      seed: params.seed,
      arrivalMs,
      tokenIds: [...outputTokenIds],
      epoch,
      finish: undefined,
      cancelDeadline: null,
    });
  }

  /** Notes an output of the engine, before it is sent. */
  add({ requestId, index, tokenIds, epoch = 0, finish }: RequestOutput): void {
    const entry = this.#entries.get(requestId);
    // An older copy of the request may still end here after a newer one has begun.
    if (!entry || entry.cancelDeadline !== null || epoch < entry.epoch) return;
    if (index > entry.tokenIds.length) return; // an engine leaves out no tokens
    entry.epoch = epoch;
    for (let i = entry.tokenIds.length - index; i < tokenIds.length; i++) {
      entry.tokenIds.push(tokenIds[i]);
    }
    if (!finish) return;
    if (finish.reason === "stop" || finish.reason === "length") entry.finish = finish;
    this.#end(entry);
  }

  /**
   * What is held of a request; null if nothing is. It stays held, in case the API server that asks dies
   * as well: a request that still runs for the time of a hold, any other one no longer than before.
   */
  take(requestId: RequestId): Taken | null {
    const entry = this.#entries.get(requestId);
    if (!entry) return null;
    const { tokenIds, finish, seed, arrivalMs, frontendId, epoch: ownerEpoch } = entry;
    if (entry.cancelDeadline === null) this.#end(entry);
    const epoch = nextResumeEpoch(ownerEpoch);
    return { tokenIds: [...tokenIds], finish, seed, arrivalMs, epoch, frontendId, ownerEpoch };
  }

  /** The request has moved to another instance, which holds it from now on. */
  forget(requestId: RequestId): void {
    const entry = this.#entries.get(requestId);
    if (!entry) return;
    this.#unhold(entry);
    this.#entries.delete(requestId);
  }

  close(): void {
    for (const entry of this.#ended) entry.cancelDeadline?.();
    this.#ended.clear();
    this.#entries.clear();
  }

  /** The request does not run here any more: its hold begins. */
  #end(entry: Entry): void {
    const { requestId, holdMs, tokenIds } = entry;
    entry.cancelDeadline = this.#clock.after(holdMs, () => this.forget(requestId));
    this.#ended.add(entry);
    this.#endedTokens += tokenIds.length;
    const { maxRequests, maxTokens } = this.#limits;
    while (this.#ended.size > maxRequests || this.#endedTokens > maxTokens) {
      const [oldest] = this.#ended;
      this.forget(oldest.requestId);
    }
  }

  #unhold(entry: Entry): void {
    if (entry.cancelDeadline === null) return;
    entry.cancelDeadline();
    entry.cancelDeadline = null;
    this.#ended.delete(entry);
    this.#endedTokens -= entry.tokenIds.length;
  }
}
