import type { Clock } from "../../core/clock.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";

/**
 * Limits how often an engine reports to the manager: one report per interval, the latest. A report
 * is sent at once when the engine becomes idle, or when another request has run its expected steps
 * and waits to move. Finished and received requests of skipped reports are in the next report.
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
    private intervalMs: number,
    private readonly send: (info: InstanceInfo) => void,
  ) {}

  /** Whether a report made now would be sent at once. */
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

  /** Reports so often from the next report on. */
  setInterval(intervalMs: number): void {
    this.intervalMs = intervalMs;
  }

  /** Sends no more reports. */
  close(): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
  }

  #becomesIdle(isIdle: boolean): boolean {
    return isIdle && !this.#wasIdle;
  }

  /** Time until the next report may be sent. */
  #remainingMs(): number {
    return this.#lastSentMs + this.intervalMs - this.clock.nowMs();
  }

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

/** The report `info` with the requests of `before`, a report that is skipped. */
function withRequestsOf(before: InstanceInfo, info: InstanceInfo): InstanceInfo {
  const { finishedRequestIds, receivedRequestIds } = before;
  if (finishedRequestIds.length === 0 && receivedRequestIds.length === 0) return info;
  return {
    ...info,
    finishedRequestIds: [...finishedRequestIds, ...info.finishedRequestIds],
    receivedRequestIds: [...receivedRequestIds, ...info.receivedRequestIds],
  };
}
