import { quantile } from "../../core/stats/distribution.ts";
import { type FeedPoint, type FeedSummary, type Percentiles, POINT_MS } from "./records.ts";

/** Points that are kept: five minutes. */
const MAX_POINTS = 150;
/** Slices whose latencies make a point: ten seconds. */
const POINT_SLICES = 5;
/** Slices whose latencies make the summary: one minute. */
const SUMMARY_SLICES = 30;
/** Values that a slice keeps; of more, a random sample. */
const MAX_SAMPLES = 256;

/** What happened within {@linkcode POINT_MS}. */
class Slice {
  readonly ttftMs = new Sample();
  readonly tpotMs = new Sample();
  outputTokens = 0;
  promptTokens = 0;
  migrations = 0;
  worstDowntimeMs = -1;
  preemptions = 0;
  resumed = 0;
}

/** Any number of values in constant memory: algorithm R of Vitter's "Random sampling with a reservoir". */
class Sample {
  readonly values: number[] = [];
  #seen = 0;

  add(value: number): void {
    this.#seen++;
    if (this.values.length < MAX_SAMPLES) {
      this.values.push(value);
      return;
    }
    const place = Math.floor(Math.random() * this.#seen);
    if (place < MAX_SAMPLES) this.values[place] = value;
  }
}

/** Latencies, throughput and counts of the last five minutes, in slices of two seconds. */
export class LatencyHistory {
  #current = new Slice();
  /** The newest last. */
  #closed: Slice[] = [];
  #points: FeedPoint[] = [];

  noteFirstToken(ttftMs: number, promptTokens: number): void {
    this.#current.ttftMs.add(ttftMs);
    this.#current.promptTokens += promptTokens;
  }

  noteTokens(count: number): void {
    this.#current.outputTokens += count;
  }

  /** @param tpotMs time per output token after the first */
  noteEnd(tpotMs: number): void {
    this.#current.tpotMs.add(tpotMs);
  }

  noteMigration(downtimeMs: number): void {
    this.#current.migrations++;
    this.#current.worstDowntimeMs = Math.max(this.#current.worstDowntimeMs, downtimeMs);
  }

  notePreemptions(count: number): void {
    this.#current.preemptions += count;
  }

  noteResumed(): void {
    this.#current.resumed++;
  }

  /** The newest last. */
  get points(): readonly FeedPoint[] {
    return this.#points;
  }

  /** Ends a slice. Call it every {@linkcode POINT_MS}. */
  close(nowMs: number): FeedPoint {
    const slice = this.#current;
    this.#current = new Slice();
    this.#closed = [...this.#closed, slice].slice(-MAX_POINTS);
    const lately = this.#closed.slice(-POINT_SLICES);
    const seconds = POINT_MS / 1000;
    const point: FeedPoint = {
      atMs: Math.round(nowMs),
      ttftMs: percentiles(lately.map(({ ttftMs }) => ttftMs)),
      tpotMs: percentiles(lately.map(({ tpotMs }) => tpotMs)),
      outputTokensPerSecond: Math.round(slice.outputTokens / seconds),
      promptTokensPerSecond: Math.round(slice.promptTokens / seconds),
      migrations: slice.migrations,
      preemptions: slice.preemptions,
    };
    this.#points = [...this.#points, point].slice(-MAX_POINTS);
    return point;
  }

  summary(): FeedSummary {
    const slices = [...this.#closed, this.#current];
    const lastMinute = slices.slice(-SUMMARY_SLICES);
    const sum = (value: (slice: Slice) => number) =>
      slices.reduce((total, slice) => total + value(slice), 0);
    const worstMs = Math.max(...slices.map(({ worstDowntimeMs }) => worstDowntimeMs));
    const recent = this.#points.slice(-POINT_SLICES);
    const tokens = recent.reduce((total, point) => total + point.outputTokensPerSecond, 0);
    return {
      ttftMs: percentiles(lastMinute.map(({ ttftMs }) => ttftMs)),
      tpotMs: percentiles(lastMinute.map(({ tpotMs }) => tpotMs)),
      outputTokensPerSecond: Math.round(tokens / Math.max(1, recent.length)),
      migrations: sum(({ migrations }) => migrations),
      worstDowntimeMs: worstMs < 0 ? null : short(worstMs),
      preemptions: sum(({ preemptions }) => preemptions),
      resumed: sum(({ resumed }) => resumed),
    };
  }
}

function percentiles(samples: readonly Sample[]): Percentiles | null {
  const sorted = Float64Array.from(samples.flatMap(({ values }) => values)).sort();
  if (sorted.length === 0) return null;
  return [short(quantile(sorted, 0.5)), short(quantile(sorted, 0.99))];
}

/** Three decimals are enough for people. */
function short(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
