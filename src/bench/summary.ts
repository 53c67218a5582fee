/** The figures of a load, by the definitions of vLLM's `vllm bench serve` (vllm/benchmarks/serve.py). */
import { Metric } from "./metric.ts";
import type { LoadResult, RequestRecord } from "./open_loop.ts";

/** A latency that a report shows. */
export type LatencyName = "ttft" | "tpot" | "itl" | "e2el";

export const latencyNames: readonly LatencyName[] = ["ttft", "tpot", "itl", "e2el"];

/** How a latency is called in tables. */
export const latencyTitles: Readonly<Record<LatencyName, readonly [short: string, long: string]>> =
  {
    ttft: ["TTFT", "Time to First Token"],
    tpot: ["TPOT", "Time per Output Token (excl. 1st token)"],
    itl: ["ITL", "Inter-token Latency"],
    e2el: ["E2EL", "End-to-end Latency"],
  };

/** Most milliseconds that a good request may take, by latency. */
export type Goodput = Readonly<Partial<Record<"ttft" | "tpot" | "e2el", number>>>;

export interface Summary {
  readonly completed: number;
  readonly failed: number;
  /** From the start of the load to the end of its last answer. */
  readonly durationSeconds: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Completed requests per second. */
  readonly requestThroughput: number;
  /** Completed requests per second within the limits; null if there are no limits. */
  readonly goodput: number | null;
  /** Tokens per second. */
  readonly outputThroughput: number;
  readonly totalThroughput: number;
  /** Most tokens in a second, and most requests at once in a second. */
  readonly peakOutputThroughput: number;
  readonly peakConcurrency: number;
  /**
   * Milliseconds. TTFT and E2EL start when a request was due, not when it was sent. TPOT is one value for each
   * request of two tokens or more, ITL one for each token but the first.
   */
  readonly latencies: Readonly<Record<LatencyName, Metric>>;
  /** How late requests were sent because this client was too slow. */
  readonly lateMs: Metric;
  /** How long requests waited for a place, if their number is limited. */
  readonly waitedMs: Metric;
}

/** Tokens of the prompt: as the server counts them, otherwise as planned. */
export type PromptTokens = (record: RequestRecord, index: number) => number;

/** @param plannedTokens of each prompt, where the server does not count */
export function summarize(
  { startMs, endMs, records }: LoadResult,
  plannedTokens: readonly number[],
  limits: Goodput = {},
): Summary {
  const good = records.filter(({ failure }) => failure === null);
  const durationSeconds = (endMs - startMs) / 1000;
  const perSecond = (count: number) => durationSeconds > 0 ? count / durationSeconds : 0;
  let inputTokens = 0, outputTokens = 0;
  for (const [i, { failure, promptTokens, outputTokens: output }] of records.entries()) {
    if (failure !== null) continue;
    inputTokens += promptTokens ?? plannedTokens[i] ?? 0;
    outputTokens += output;
  }
  return {
    completed: good.length,
    failed: records.length - good.length,
    durationSeconds,
    inputTokens,
    outputTokens,
    requestThroughput: perSecond(good.length),
    goodput: Object.keys(limits).length === 0
      ? null
      : perSecond(good.filter((record) => isWithin(record, limits)).length),
    outputThroughput: perSecond(outputTokens),
    totalThroughput: perSecond(inputTokens + outputTokens),
    ...peaks(good),
    latencies: {
      ttft: new Metric(good.map(ttftMs)),
      tpot: new Metric(good.filter(({ outputTokens }) => outputTokens > 1).map(tpotMs)),
      itl: new Metric(gapsOf(good)),
      e2el: new Metric(good.map(e2elMs)),
    },
    lateMs: new Metric(records.map(({ sentMs, dueMs }) => Math.max(0, sentMs - dueMs))),
    waitedMs: new Metric(records.map(({ dueMs, plannedMs }) => dueMs - plannedMs)),
  };
}

export function ttftMs({ firstMs, dueMs }: RequestRecord): number {
  return firstMs - dueMs;
}

/** Until the last token, as in vLLM; what follows it (usage, the end of the connection) is not counted. */
export function e2elMs({ lastMs, dueMs }: RequestRecord): number {
  return lastMs - dueMs;
}

/** 0 for a request of one token. */
export function tpotMs({ lastMs, firstMs, outputTokens }: RequestRecord): number {
  return outputTokens > 1 ? (lastMs - firstMs) / (outputTokens - 1) : 0;
}

const latencyOf = { ttft: ttftMs, tpot: tpotMs, e2el: e2elMs };

function isWithin(record: RequestRecord, limits: Goodput): boolean {
  return Object.entries(limits).every(([name, limitMs]) =>
    latencyOf[name as keyof Goodput](record) <= limitMs
  );
}

function* gapsOf(records: readonly RequestRecord[]): Generator<number> {
  for (const { gapsMs } of records) yield* gapsMs;
}

/** By seconds since the first request was due, as vLLM counts them. */
function peaks(records: readonly RequestRecord[]) {
  const tokens = new Map<number, number>(), running = new Map<number, number>();
  const firstMs = records.reduce((least, { dueMs }) => Math.min(least, dueMs), Infinity);
  const secondOf = (ms: number) => Math.floor((ms - firstMs) / 1000);
  const add = (counts: Map<number, number>, second: number) =>
    counts.set(second, (counts.get(second) ?? 0) + 1);
  for (const { dueMs, firstMs: first, lastMs, gapsMs } of records) {
    let ms = first;
    add(tokens, secondOf(ms));
    for (const gapMs of gapsMs) add(tokens, secondOf(ms += gapMs));
    const end = secondOf(lastMs);
    for (let second = secondOf(dueMs); second <= end; second++) add(running, second);
  }
  const most = (counts: Map<number, number>) =>
    [...counts.values()].reduce((most, count) => Math.max(most, count), 0);
  return { peakOutputThroughput: most(tokens), peakConcurrency: most(running) };
}
