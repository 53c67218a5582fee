import type { Clock } from "../core/clock.ts";
import type { ClientRequest } from "./client_request.ts";
import { ISOLATION_LEASE_MS } from "../core/protocol/dispatch.ts";

/** A request of which tokens still come so long after its first one there does not kill an instance. */
const SURVIVAL_MS = 1_000;
/** Instances lost in a row before that, after which a request is tried alone. */
const SUSPECT_LOSSES = 2;
/** Instances that may be lost on a request that is tried alone. */
const MAX_FAILED_TRIALS = 3;
/** A request that has no token by then waits in a queue, which is no trial. */
const TRIAL_MS = 2_000;
/** An instance that has noticed that its step hangs has yet to end. */
const HANG_MARGIN_MS = 5_000;
/** Where steps may take any time, or it is not known which. */
const DEFAULT_LONGEST_STEP_MS = 75_000;
/** Pause before it is looked again whether others have survived. */
const DOUBT_POLL_MS = 200;

/**
 * Tells a request that its instances die of from those that were there by chance, so that it fails
 * alone.
 *
 * A request that kills instances does so again and again soon after it was resumed, for it is resumed
 * right where it kills. Others survive and are cleared. Those that did not, twice in a row, are
 * suspects, and are resumed one after the other when those that were lost as well have survived: the
 * first time the next one follows the first token, after a loss not before it has survived. A request
 * fails only for instances that were lost during its own trials. API servers try one after the other,
 * and not while others' have yet to survive, as long as there is a manager (`TrialLease`).
 */
export class Suspects {
  readonly #clock: Clock;
  #onTrial: ClientRequest | null = null;
  readonly #queue: { readonly request: ClientRequest; readonly resume: () => void }[] = [];
  #cancelTrial: (() => void) | null = null;
  /** Were lost with an instance, are no suspects, and may have yet to survive. */
  readonly #doubtful = new Set<ClientRequest>();
  #cancelNext: (() => void) | null = null;
  readonly #keepLease: () => void;
  #cancelLease: (() => void) | null = null;
  #isClosed = false;

  /** @param keepLease tells other API servers not to try any now */
  constructor(clock: Clock, keepLease: () => void = () => {}) {
    this.#clock = clock;
    this.#keepLease = keepLease;
  }

  /**
   * Notes that the instance of a request was lost.
   * @returns why the request must not go on; null if it may
   */
  noteLoss(request: ClientRequest): string | null {
    if (this.#hasSurvived(request)) request.fruitlessLosses = request.failedTrials = 0;
    else {
      request.fruitlessLosses++;
      if (request.isTried) request.failedTrials++;
    }
    this.forget(request);
    this.#doubtful.add(request);
    this.#keepLeaseSoon();
    if (request.failedTrials < MAX_FAILED_TRIALS) return null;
    return `${request.fruitlessLosses} instances in a row were lost as it began to run there`;
  }

  /**
   * Calls back when a request may be resumed: now, or when the suspects before it are through; at the
   * latest when it has ended.
   */
  release(request: ClientRequest, resume: () => void): void {
    request.isTried = false;
    if (request.fruitlessLosses < SUSPECT_LOSSES) return resume();
    this.forget(request); // it may have been lost in a way that does not speak against it
    this.#queue.push({ request, resume });
    this.#tryNextSoon();
  }

  /** A request got output. */
  noteOutput(request: ClientRequest): void {
    if (request !== this.#onTrial || request.failedTrials > 0) return;
    if (request.hasProgressed) this.#endTrial();
  }

  /** A request has ended. */
  forget(request: ClientRequest): void {
    this.#doubtful.delete(request);
    if (request === this.#onTrial) this.#endTrial();
  }

  /** Nothing is tried any more: who waits goes on. */
  close(): void {
    this.#isClosed = true;
    const waiting = this.#queue.splice(0);
    this.#endTrial();
    this.#cancelNext?.();
    this.#cancelLease?.();
    for (const { resume } of waiting) resume();
  }

  #endTrial(): void {
    this.#cancelTrial?.();
    this.#cancelTrial = null;
    this.#onTrial = null;
    this.#tryNextSoon();
  }

  /** All that were lost together are noted before. */
  #tryNextSoon(pauseMs = 0): void {
    if (this.#isClosed || this.#queue.length === 0) return;
    this.#cancelNext ??= this.#clock.after(pauseMs, () => {
      this.#cancelNext = null;
      this.#tryNext();
    });
  }

  #tryNext(): void {
    if (this.#onTrial !== null) return;
    this.#clear();
    if (this.#doubtful.size > 0) return this.#tryNextSoon(DOUBT_POLL_MS);
    const next = this.#queue.shift();
    if (!next) return;
    if (next.request.hasEnded) {
      next.resume();
      return this.#tryNextSoon();
    }
    this.#onTrial = next.request;
    next.request.isTried = true;
    this.#watchTrial(next.request);
    this.#keepLeaseSoon();
    next.resume();
  }

  /** Those that have survived meanwhile are not doubtful any more. */
  #clear(): void {
    for (const request of this.#doubtful) {
      if (!this.#isInDoubt(request)) this.#doubtful.delete(request);
    }
  }

  /** All that were lost together are noted before. */
  #keepLeaseSoon(pauseMs = 0): void {
    if (this.#isClosed) return;
    this.#cancelLease ??= this.#clock.after(pauseMs, () => {
      this.#cancelLease = null;
      this.#clear();
      const isInDoubt = this.#doubtful.size > 0;
      // One that is to be tried may still wait for the others' leases to end.
      if (isInDoubt || this.#onTrial?.link) this.#keepLease();
      if (isInDoubt || this.#onTrial) this.#keepLeaseSoon(ISOLATION_LEASE_MS / 2);
    });
  }

  #watchTrial(request: ClientRequest): void {
    this.#cancelTrial = this.#clock.after(SURVIVAL_MS, () => {
      const isThere = request.link !== null && !request.isBeingPlaced;
      const isOver = isThere && this.#isTrialOver(request);
      if (isOver && !request.hasProgressed) request.isTried = false;
      if (isOver || (isThere && this.#hasSurvived(request))) this.#endTrial();
      else this.#watchTrial(request);
    });
  }

  #isInDoubt(request: ClientRequest): boolean {
    if (request.hasEnded) return false;
    if (request.link === null || request.isBeingPlaced) return true;
    return !this.#hasSurvived(request) && !this.#isTrialOver(request);
  }

  /**
   * It waits in a queue where others get tokens of a second step; the first may have begun before it
   * came. Where nobody gets any, a step may hang: until its instance has ended for that.
   */
  #isTrialOver({ firstProgressMs, givenMs, link }: ClientRequest): boolean {
    const { progressedMs, formerProgressedMs, registration } = link!;
    const { longestStepMs } = registration;
    const nowMs = this.#clock.nowMs();
    const sinceMs = firstProgressMs === Infinity ? givenMs : firstProgressMs;
    const silentMs = nowMs - Math.max(sinceMs, progressedMs);
    const isQueued = formerProgressedMs > sinceMs && silentMs < SURVIVAL_MS;
    if (isQueued) return nowMs - sinceMs >= TRIAL_MS;
    return silentMs >= (longestStepMs ?? DEFAULT_LONGEST_STEP_MS) + HANG_MARGIN_MS;
  }

  /** One that got its first token and then waits to move has yet to show what its next step does. */
  #hasSurvived({ progressedMs, firstProgressMs }: ClientRequest): boolean {
    return progressedMs - firstProgressMs >= SURVIVAL_MS;
  }
}
