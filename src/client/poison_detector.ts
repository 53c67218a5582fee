import type { Clock } from "../core/clock.ts";
import { ISOLATION_LEASE_MS } from "../core/protocol/dispatch.ts";
import type { ClientRequest } from "./client_request.ts";

/** A request that still gets tokens this long after its first one does not crash the instance. */
const SURVIVAL_MS = 1_000;
/** A request is isolated after this many instances in a row were lost before it had survived. */
const LOSSES_BEFORE_ISOLATION = 2;
/** A request fails after this many instances were lost while it was isolated. */
const MAX_FAILED_ISOLATIONS = 3;
/** A request that has no token by then waits in a queue: isolating it tells nothing. */
const ISOLATION_MS = 2_000;
/** How long an instance may take to end once it has noticed that its step hangs. */
const HANG_MARGIN_MS = 5_000;
/** Assumed for instances whose steps may take any time, or that did not say how long. */
const DEFAULT_LONGEST_STEP_MS = 75_000;
/** Pause before the detector looks again whether the unproven requests have survived. */
const UNPROVEN_POLL_MS = 200;

/** Which instances were lost with a request. */
interface LossHistory {
  /** Instances lost in a row before the request had survived there. */
  lossesInARow: number;
  /** Those of them that were lost while it was isolated. */
  failedIsolations: number;
  /** It was last given to an instance while no other suspected request was. */
  isIsolated: boolean;
}

/**
 * Finds poison requests, which crash every instance that runs them, among the requests that were
 * only on a crashed instance by chance. Only the poison request fails.
 *
 * A poison request crashes instance after instance soon after each resumption, because it resumes
 * right where it crashed. Other requests survive and are cleared. A request that did not survive
 * twice in a row is suspected, and suspected requests are resumed in isolation: one at a time, and
 * only once all others that were lost have survived. The first isolation of a request ends with its
 * first token; after a loss in isolation, it ends when the request has survived. A request fails
 * only for instances that were lost while it was isolated.
 *
 * Several API servers isolate one after the other, and none while requests of another have yet to
 * survive: the manager grants a lease (src/manager/dispatch/isolation_lease.ts). Without a manager
 * each API server isolates by itself.
 */
export class PoisonDetector {
  readonly #clock: Clock;
  /** Requests of which an instance was lost. */
  readonly #histories = new Map<ClientRequest, LossHistory>();
  #isolated: ClientRequest | null = null;
  /** Suspected requests that wait to be isolated. */
  readonly #queue: { readonly request: ClientRequest; readonly resume: () => void }[] = [];
  #cancelIsolation: (() => void) | null = null;
  /** Requests that were lost, are not suspected, and may have yet to survive. */
  readonly #unproven = new Set<ClientRequest>();
  #cancelNext: (() => void) | null = null;
  readonly #keepLease: () => void;
  #cancelLease: (() => void) | null = null;
  #isClosed = false;

  /** @param keepLease asks the manager to let no other API server isolate a request now */
  constructor(clock: Clock, keepLease: () => void = () => {}) {
    this.#clock = clock;
    this.#keepLease = keepLease;
  }

  /** The request was last given to an instance in isolation. */
  isIsolated(request: ClientRequest): boolean {
    return this.#histories.get(request)?.isIsolated === true;
  }

  /** Instances that were lost in a row before the request had survived there. */
  lossesInARow(request: ClientRequest): number {
    return this.#histories.get(request)?.lossesInARow ?? 0;
  }

  /**
   * Notes that the instance of a request was lost.
   * @returns why the request must not be resumed; null if it may be
   */
  noteLoss(request: ClientRequest): string | null {
    const history = this.#historyOf(request);
    if (this.#hasSurvived(request)) history.lossesInARow = history.failedIsolations = 0;
    else {
      history.lossesInARow++;
      if (history.isIsolated) history.failedIsolations++;
    }
    this.#withdraw(request);
    this.#unproven.add(request);
    this.#keepLeaseSoon();
    if (history.failedIsolations < MAX_FAILED_ISOLATIONS) return null;
    return `${history.lossesInARow} instances in a row were lost just after it started there`;
  }

  /**
   * Calls `resume` when a request may be resumed: at once, or when it is its turn to be isolated. A
   * request that ends meanwhile is called back too.
   */
  release(request: ClientRequest, resume: () => void): void {
    const history = this.#histories.get(request);
    if (history) history.isIsolated = false;
    if (this.lossesInARow(request) < LOSSES_BEFORE_ISOLATION) return resume();
    this.#withdraw(request); // its owner may have lost the request without being lost itself
    this.#queue.push({ request, resume });
    this.#isolateNextSoon();
  }

  /** A request got output. On the path of every token. */
  noteOutput(request: ClientRequest): void {
    if (request !== this.#isolated || !request.hasProgressed) return;
    if (this.#historyOf(request).failedIsolations === 0) this.#endIsolation();
  }

  /** A request has ended. */
  forget(request: ClientRequest): void {
    this.#histories.delete(request);
    this.#withdraw(request);
  }

  /** Isolates no request any more; those that wait for their turn are called back. */
  close(): void {
    this.#isClosed = true;
    const waiting = this.#queue.splice(0);
    this.#endIsolation();
    this.#cancelNext?.();
    this.#cancelLease?.();
    for (const { resume } of waiting) resume();
  }

  #historyOf(request: ClientRequest): LossHistory {
    const known = this.#histories.get(request);
    if (known) return known;
    const history = { lossesInARow: 0, failedIsolations: 0, isIsolated: false };
    this.#histories.set(request, history);
    return history;
  }

  /** The request is on no instance any more, so that no instance can prove it harmless. */
  #withdraw(request: ClientRequest): void {
    this.#unproven.delete(request);
    if (request === this.#isolated) this.#endIsolation();
  }

  #endIsolation(): void {
    this.#cancelIsolation?.();
    this.#cancelIsolation = null;
    this.#isolated = null;
    this.#isolateNextSoon();
  }

  /** In a later turn: by then all requests of a lost instance are noted. */
  #isolateNextSoon(pauseMs = 0): void {
    if (this.#isClosed || this.#queue.length === 0) return;
    this.#cancelNext ??= this.#clock.after(pauseMs, () => {
      this.#cancelNext = null;
      this.#isolateNext();
    });
  }

  #isolateNext(): void {
    if (this.#isolated !== null) return;
    this.#clearProven();
    if (this.#unproven.size > 0) return this.#isolateNextSoon(UNPROVEN_POLL_MS);
    const next = this.#queue.shift();
    if (!next) return;
    const { request, resume } = next;
    if (request.hasEnded) {
      resume();
      return this.#isolateNextSoon();
    }
    this.#isolated = request;
    this.#historyOf(request).isIsolated = true;
    this.#watchIsolation(request);
    this.#keepLeaseSoon();
    resume();
  }

  /** Clears the requests that have survived meanwhile, or that wait in a queue. */
  #clearProven(): void {
    for (const request of this.#unproven) {
      if (!this.#isUnproven(request)) this.#unproven.delete(request);
    }
  }

  /** In a later turn: by then all requests of a lost instance are noted. */
  #keepLeaseSoon(pauseMs = 0): void {
    if (this.#isClosed) return;
    this.#cancelLease ??= this.#clock.after(pauseMs, () => {
      this.#cancelLease = null;
      this.#clearProven();
      const hasUnproven = this.#unproven.size > 0;
      // The isolated request may still wait for the leases of other API servers to end.
      if (hasUnproven || this.#isolated?.link) this.#keepLease();
      if (hasUnproven || this.#isolated) this.#keepLeaseSoon(ISOLATION_LEASE_MS / 2);
    });
  }

  #watchIsolation(request: ClientRequest): void {
    this.#cancelIsolation = this.#clock.after(SURVIVAL_MS, () => {
      const isPlaced = request.link !== null && !request.isBeingPlaced;
      const isInconclusive = isPlaced && this.#isInconclusive(request);
      if (isInconclusive && !request.hasProgressed) this.#historyOf(request).isIsolated = false;
      if (isInconclusive || (isPlaced && this.#hasSurvived(request))) this.#endIsolation();
      else this.#watchIsolation(request);
    });
  }

  #isUnproven(request: ClientRequest): boolean {
    if (request.hasEnded) return false;
    if (request.link === null || request.isBeingPlaced) return true;
    return !this.#hasSurvived(request) && !this.#isInconclusive(request);
  }

  /**
   * The request waits in a queue while other requests there get tokens of a second step (the first
   * step may have begun before the request came). If no request gets a token, a step may hang: then
   * the wait is over when the instance must have noticed it and ended.
   */
  #isInconclusive({ firstProgressMs, givenMs, link }: ClientRequest): boolean {
    const { progressedMs, formerProgressedMs, registration } = link!;
    const { longestStepMs } = registration;
    const nowMs = this.#clock.nowMs();
    const sinceMs = firstProgressMs === Infinity ? givenMs : firstProgressMs;
    const silentMs = nowMs - Math.max(sinceMs, progressedMs);
    const isQueued = formerProgressedMs > sinceMs && silentMs < SURVIVAL_MS;
    if (isQueued) return nowMs - sinceMs >= ISOLATION_MS;
    return silentMs >= (longestStepMs ?? DEFAULT_LONGEST_STEP_MS) + HANG_MARGIN_MS;
  }

  /** One token is not enough: the request may then wait to move, and its next step may crash. */
  #hasSurvived({ progressedMs, firstProgressMs }: ClientRequest): boolean {
    return progressedMs - firstProgressMs >= SURVIVAL_MS;
  }
}
