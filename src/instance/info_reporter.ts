import type { Clock } from "../core/clock.ts";
import type { InstanceInfo, RequestId } from "../core/messages.ts";

/**
 * Thins out an engine's reports: at most one per interval, the latest, and one at once whenever the
 * engine becomes idle. Requests finished or received of the reports left out are in the next.
 */
export class InfoReporter {
  #latest: InstanceInfo | null = null;
  #finished: RequestId[] = [];
  #received: RequestId[] = [];
  #lastSentMs = -Infinity;
  #wasIdle = true;
  #cancelTimer: (() => void) | null = null;
  #isClosed = false;

  constructor(
    private readonly clock: Clock,
    private readonly intervalMs: number,
    private readonly send: (info: InstanceInfo) => void,
  ) {}

  report(info: InstanceInfo): void {
    if (this.#isClosed) return;
    this.#latest = info;
    this.#finished.push(...info.finishedRequestIds);
    this.#received.push(...info.receivedRequestIds);
    const isIdle = info.runningRequests + info.waitingRequests + info.killedRequests === 0;
    const becameIdle = isIdle && !this.#wasIdle;
    this.#wasIdle = isIdle;
    const dueMs = this.#lastSentMs + this.intervalMs - info.timestampMs;
    if (becameIdle || dueMs <= 0) this.#sendLatest();
    else this.#cancelTimer ??= this.clock.after(dueMs, () => this.#sendLatest());
  }

  /** Sends nothing any more. */
  close(): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
  }

  #sendLatest(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    if (!this.#latest) return;
    this.#lastSentMs = this.clock.nowMs();
    this.send({
      ...this.#latest,
      finishedRequestIds: distinct(this.#finished),
      receivedRequestIds: distinct(this.#received),
    });
    this.#finished = [];
    this.#received = [];
  }
}

function distinct(ids: readonly RequestId[]): readonly RequestId[] {
  return ids.length < 2 ? ids : [...new Set(ids)];
}
