import { type Distribution, distributionOf } from "../../core/stats/distribution.ts";
import { Histogram } from "../../core/stats/histogram.ts";
import type { Priority, RequestOutput } from "../../core/protocol/generate.ts";
import type { WorkloadRequest } from "../../workload/request.ts";
import type { PreemptionObserver } from "./clocked_executor.ts";

/** Latencies of a set of requests, in milliseconds. */
export interface Latencies {
  readonly requests: number;
  /** Time to the first token, from arrival. */
  readonly ttftMs: Distribution;
  /** Time per output token after the first, a value per request of two tokens or more. */
  readonly tpotMs: Distribution;
  /** Arrival to last token. */
  readonly e2eMs: Distribution;
  /**
   * Time that preemptions cost a request: from losing its blocks until it has them again, which is
   * queueing and recomputation together. A value per request (OSDI'24, section 6.3).
   */
  readonly preemptionLossMs: Distribution;
}

/** One request of a run. Times are milliseconds of the simulated clock. */
export interface RequestRow {
  readonly arrivalMs: number;
  readonly priority: Priority;
  readonly outputTokens: number;
  /** From arrival to the first token; null: it got none. */
  readonly ttftMs: number | null;
  /** From arrival to the last token. */
  readonly e2eMs: number | null;
  readonly preemptionLossMs: number;
  readonly hasFailed: boolean;
}

const NOT_YET = -1;

/**
 * Receives the tokens of all requests of a run, and keeps a few numbers for each request. A request's
 * id is its number in the order of arrival.
 */
export class RequestRecorder implements PreemptionObserver {
  #numEnded = 0;
  #numTokens = 0;
  #numPreemptions = 0;
  readonly #failures: string[] = [];
  readonly #itl = new Histogram();
  // Indexed by the request's number.
  readonly #arrivalMs: number[] = [];
  readonly #firstTokenMs: number[] = [];
  readonly #lastTokenMs: number[] = [];
  readonly #outputTokens: number[] = [];
  readonly #lossMs: number[] = [];
  readonly #isHigh: boolean[] = [];
  readonly #hasFailed: boolean[] = [];
  /** Since when each preempted request is missing from its instance's steps. */
  readonly #missedMs = new Map<number, number>();

  get numRequests(): number {
    return this.#arrivalMs.length;
  }

  get numEnded(): number {
    return this.#numEnded;
  }

  get numTokens(): number {
    return this.#numTokens;
  }

  get numPreemptions(): number {
    return this.#numPreemptions;
  }

  /** Why requests failed, one line each. */
  get failures(): readonly string[] {
    return this.#failures;
  }

  /** When the newest token came, or, if later, a request arrived while none was outstanding. */
  lastProgressMs = 0;

  /** @returns the number of the request */
  arrived({ priority }: Pick<WorkloadRequest, "priority">, nowMs: number): number {
    if (this.#numEnded === this.numRequests) this.lastProgressMs = nowMs;
    this.#arrivalMs.push(nowMs);
    this.#firstTokenMs.push(NOT_YET);
    this.#lastTokenMs.push(NOT_YET);
    this.#outputTokens.push(0);
    this.#lossMs.push(0);
    this.#isHigh.push(priority === "high");
    this.#hasFailed.push(false);
    return this.#arrivalMs.length - 1;
  }

  /** Records the outputs of an engine step. */
  take(outputs: readonly RequestOutput[], nowMs: number): void {
    this.lastProgressMs = nowMs;
    for (const { requestId, tokenIds, finish } of outputs) {
      const request = Number(requestId);
      if (tokenIds.length > 0) this.#tokens(request, tokenIds.length, nowMs);
      if (!finish) continue;
      this.#numEnded++;
      if (finish.error) this.failed(request, finish.error.message);
    }
  }

  /** Records that the request was refused. */
  refused(request: number, reason: string): void {
    this.#numEnded++;
    this.failed(request, reason);
  }

  failed(request: number, reason: string): void {
    this.#hasFailed[request] = true;
    this.#failures.push(`request ${request}: ${reason}`);
  }

  missed(request: number, nowMs: number): void {
    this.#missedMs.set(request, nowMs);
  }

  returned(request: number): void {
    this.#missedMs.delete(request);
  }

  restored(request: number, endMs: number): void {
    const missedMs = this.#missedMs.get(request);
    if (missedMs === undefined) return;
    this.#missedMs.delete(request);
    this.#numPreemptions++;
    this.#lossMs[request] += endMs - missedMs;
  }

  /** Between two tokens of a request. */
  get itlMs(): Distribution {
    return this.#itl.distribution();
  }

  /** Latencies of all requests that did not fail, or only of those with a priority. */
  latencies(priority: Priority | null = null): Latencies {
    const chosen: number[] = [];
    for (let request = 0; request < this.numRequests; request++) {
      const isWanted = priority === null || this.#isHigh[request] === (priority === "high");
      if (isWanted && !this.#hasFailed[request]) chosen.push(request);
    }
    const decoded = chosen.filter((request) => this.#outputTokens[request] > 1);
    const first = this.#firstTokenMs, last = this.#lastTokenMs, arrival = this.#arrivalMs;
    return {
      requests: chosen.length,
      ttftMs: distributionOf(chosen.map((i) => first[i] - arrival[i])),
      tpotMs: distributionOf(
        decoded.map((i) => (last[i] - first[i]) / (this.#outputTokens[i] - 1)),
      ),
      e2eMs: distributionOf(chosen.map((i) => last[i] - arrival[i])),
      preemptionLossMs: distributionOf(chosen.map((i) => this.#lossMs[i])),
    };
  }

  /** Every request, in the order of arrival. */
  *rows(): Generator<RequestRow> {
    for (let i = 0; i < this.numRequests; i++) {
      const arrivalMs = this.#arrivalMs[i];
      const hasToken = this.#firstTokenMs[i] !== NOT_YET;
      yield {
        arrivalMs,
        priority: this.#isHigh[i] ? "high" : "normal",
        outputTokens: this.#outputTokens[i],
        ttftMs: hasToken ? this.#firstTokenMs[i] - arrivalMs : null,
        e2eMs: hasToken ? this.#lastTokenMs[i] - arrivalMs : null,
        preemptionLossMs: this.#lossMs[i],
        hasFailed: this.#hasFailed[i],
      };
    }
  }

  #tokens(request: number, count: number, nowMs: number): void {
    this.#numTokens += count;
    this.#outputTokens[request] += count;
    if (this.#firstTokenMs[request] === NOT_YET) this.#firstTokenMs[request] = nowMs;
    else this.#itl.add(nowMs - this.#lastTokenMs[request]);
    this.#lastTokenMs[request] = nowMs;
  }
}
