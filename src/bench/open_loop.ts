/** A load that comes whether or not answers do, and what its clients saw of the answers. */
import { type Clock, sleep } from "../core/clock.ts";
import { type Distribution, distributionOf } from "../core/stats/distribution.ts";
import { Histogram } from "../core/stats/histogram.ts";

/**
 * Sends one request; resolves when its answer is complete, rejects when it failed.
 * @param onTokens to be told of the tokens as they come
 */
export type Send<Request> = (
  request: Request,
  onTokens: (count: number) => void,
) => Promise<void>;

/** Latencies are in milliseconds, from the planned arrival: a client that is late hides nothing. */
export interface OpenLoopResult {
  readonly requests: number;
  /** Why requests failed, one line each; they are in no latency. */
  readonly failures: readonly string[];
  readonly outputTokens: number;
  /** Planned arrival to first token. */
  readonly ttftMs: Distribution;
  /** Between two tokens of a request. */
  readonly itlMs: Distribution;
  /** The longest time between two tokens, a value per request of two tokens or more. */
  readonly longestItlMs: Distribution;
  /** Planned arrival to the end of the answer. */
  readonly e2eMs: Distribution;
  /** How late requests were sent: what the client's machine could not do in time. */
  readonly lateMs: Distribution;
  /** First planned arrival to last end. */
  readonly durationMs: number;
}

/**
 * Sends every request at its time.
 * @param requests by time of arrival, in milliseconds from now
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
      // Tokens that arrive together have waited for each other: the first for the gap.
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
