/** An open-loop load: requests are sent at their times, however long earlier answers take. */
import { type Clock, sleep } from "../core/clock.ts";
import { type Distribution, distributionOf } from "../core/stats/distribution.ts";
import { Histogram } from "../core/stats/histogram.ts";

/**
 * Sends one request; resolves when its answer is complete, rejects if it failed.
 * @param onTokens called with the number of tokens as they arrive
 */
export type Send<Request> = (
  request: Request,
  onTokens: (count: number) => void,
) => Promise<void>;

/** Latencies are in milliseconds, from the planned arrival, so that a late client hides no delay. */
export interface OpenLoopResult {
  readonly requests: number;
  /** Why requests failed, one line each. Failed requests are in no latency. */
  readonly failures: readonly string[];
  readonly outputTokens: number;
  /** Time from the planned arrival to the first token. */
  readonly ttftMs: Distribution;
  /** Time between two tokens of a request. */
  readonly itlMs: Distribution;
  /** Longest time between two tokens, one value for each request of two tokens or more. */
  readonly longestItlMs: Distribution;
  /** Time from the planned arrival to the end of the answer. */
  readonly e2eMs: Distribution;
  /** How late requests were sent, because the client's machine was too slow. */
  readonly lateMs: Distribution;
  /** Time from the first planned arrival to the end of the last answer. */
  readonly durationMs: number;
}

/**
 * Sends every request at its time.
 * @param requests in order of arrival, in milliseconds from now
 */
export async function runOpenLoop<Request extends { readonly arrivalMs: number }>(
  requests: readonly Request[],
  send: Send<Request>,
  clock: Clock,
): Promise<OpenLoopResult> {
  const recorder = new LatencyRecorder();
  const startMs = clock.nowMs();
  const answers: Promise<void>[] = [];
  for (const request of requests) {
    const arrivalMs = startMs + request.arrivalMs;
    const waitMs = arrivalMs - clock.nowMs();
    if (waitMs > 0) await sleep(clock, waitMs);
    recorder.lateMs.push(Math.max(0, clock.nowMs() - arrivalMs));
    answers.push(recorder.follow(arrivalMs, (onTokens) => send(request, onTokens), clock));
  }
  await Promise.all(answers);
  return recorder.result(clock.nowMs() - startMs - (requests[0]?.arrivalMs ?? 0));
}

class LatencyRecorder {
  readonly lateMs: number[] = [];
  readonly #failures: string[] = [];
  readonly #ttftMs: number[] = [];
  readonly #e2eMs: number[] = [];
  readonly #longestItlMs: number[] = [];
  readonly #itlMs = new Histogram();
  #outputTokens = 0;

  async follow(
    arrivalMs: number,
    send: (onTokens: (count: number) => void) => Promise<void>,
    clock: Clock,
  ): Promise<void> {
    let firstMs: number | null = null, lastMs = 0;
    const gapsMs: number[] = [];
    const onTokens = (count: number) => {
      if (count === 0) return;
      const nowMs = clock.nowMs();
      if (firstMs === null) firstMs = nowMs;
      else gapsMs.push(nowMs - lastMs);
      // Of tokens that arrive together, the first gets the whole gap and the others get 0.
      for (let i = 1; i < count; i++) gapsMs.push(0);
      lastMs = nowMs;
    };
    try {
      await send(onTokens);
      if (firstMs === null) throw new Error("the answer had no tokens");
    } catch (error) {
      this.#failures.push((error as Error).message);
      return;
    }
    this.#ttftMs.push(firstMs - arrivalMs);
    this.#e2eMs.push(clock.nowMs() - arrivalMs);
    this.#outputTokens += 1 + gapsMs.length;
    for (const gapMs of gapsMs) this.#itlMs.add(gapMs);
    if (gapsMs.length > 0) this.#longestItlMs.push(Math.max(...gapsMs));
  }

  result(durationMs: number): OpenLoopResult {
    return {
      requests: this.lateMs.length,
      failures: this.#failures,
      outputTokens: this.#outputTokens,
      ttftMs: distributionOf(this.#ttftMs),
      itlMs: this.#itlMs.distribution(),
      longestItlMs: distributionOf(this.#longestItlMs),
      e2eMs: distributionOf(this.#e2eMs),
      lateMs: distributionOf(this.lateMs),
      durationMs,
    };
  }
}
