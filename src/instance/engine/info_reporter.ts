import type { Clock } from "../../core/clock.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";

/**
 * Thins out an engine's reports: at most one per interval, the latest, and one at once whenever the
 * engine becomes idle or a request begins to wait for its leaving. Requests finished or received of
 * the reports left out are in the next.
 */
export class InfoReporter {
  #latest: InstanceInfo | null = null;
  #lastSentMs = -Infinity;
  #wasIdle = true;
  #lastLeaving = 0;
  #cancelTimer: (() => void) | null = null;
  #isClosed = false;

  constructor(
    private readonly clock: Clock,
    private readonly intervalMs: number,
    private readonly send: (info: InstanceInfo) => void,
  ) {}

  /** Whether a report would be sent at once. */
  isDue(isIdle: boolean): boolean {
    return this.#becomesIdle(isIdle) || this.#remainingMs() <= 0;
  }

  report(info: InstanceInfo): void {
    if (this.#isClosed) return;
    const latest = this.#latest === null ? info : withRequestsOf(this.#latest, info);
    const isIdle = info.runningRequests + info.waitingRequests + info.killedRequests === 0;
    const isDue = this.isDue(isIdle);
    this.#wasIdle = isIdle;
    const isMoreLeaving = info.leavingRequests > this.#lastLeaving;
    this.#lastLeaving = info.leavingRequests;
    if (isDue || isMoreLeaving) return this.#send(latest);
    this.#latest = latest;
    this.#cancelTimer ??= this.clock.after(this.#remainingMs(), this.#sendLatest);
  }

  /** Sends nothing any more. */
  close(): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
  }

  #becomesIdle(isIdle: boolean): boolean {
    return isIdle && !this.#wasIdle;
  }

  /** Until the next report. */
  #remainingMs(): number {
    return this.#lastSentMs + this.intervalMs - this.clock.nowMs();
  }

  /** The timer has rung. */
  readonly #sendLatest = (): void => {
    this.#cancelTimer = null;
    this.#send(this.#latest!);
  };

  #send(info: InstanceInfo): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#latest = null;
    this.#lastSentMs = this.clock.nowMs();
    this.send(info);
  }
}

/** A report that also tells what one before it, which is left out, would have told. */
function withRequestsOf(before: InstanceInfo, info: InstanceInfo): InstanceInfo {
  const { finishedRequestIds, receivedRequestIds } = before;
  if (finishedRequestIds.length === 0 && receivedRequestIds.length === 0) return info;
  return {
    ...info,
    finishedRequestIds: [...finishedRequestIds, ...info.finishedRequestIds],
    receivedRequestIds: [...receivedRequestIds, ...info.receivedRequestIds],
  };
}
