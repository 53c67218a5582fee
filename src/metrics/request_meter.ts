import type { Clock } from "../core/clock.ts";
import { type ErrorKind, toErrorRecord } from "../core/errors.ts";
import type { FinishReason, Priority } from "../core/protocol/generate.ts";
import { BucketCounts } from "../core/stats/bucket_counts.ts";
import {
  decodeMs,
  queueMs,
  type RecordedSampling,
  type RequestOrigin,
  type RequestRecord,
  tpotMs,
} from "./request_record.ts";

// The bounds are vLLM's (vllm/engine/metrics.py), so that its dashboards and alerts fit.
const FIRST_TOKEN_BOUNDS = [
  ...[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20],
  ...[40, 80, 160, 640, 2560],
];
const TOKEN_BOUNDS = [
  ...[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20],
  ...[40, 80],
];
const LATENCY_BOUNDS = [
  ...[0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680],
];
const LENGTH_BOUNDS = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000],
];
/** A queue is short where all is well: vLLM's bounds begin at 0.3 s. */
const QUEUE_BOUNDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, ...LATENCY_BOUNDS];

/** What a request says when it begins. */
export interface MeteredRequest {
  readonly requestId: string;
  readonly priority?: Priority;
  readonly sampling: RecordedSampling;
}

/**
 * Measures the requests of an API server, from their arrival to their end. A token costs one reading of
 * the clock and one bucket.
 */
export class RequestMeter {
  readonly #clock: Clock;
  readonly #listeners: ((record: RequestRecord) => void)[] = [];
  #numRunning = 0;

  /** Seconds, as all that follow. */
  readonly firstToken = new BucketCounts(FIRST_TOKEN_BOUNDS);
  /** Between two outputs of a request, for each token. */
  readonly betweenTokens = new BucketCounts(TOKEN_BOUNDS);
  /** Mean of each request. */
  readonly perToken = new BucketCounts(TOKEN_BOUNDS);
  readonly endToEnd = new BucketCounts(LATENCY_BOUNDS);
  readonly queue: Readonly<Record<Priority, BucketCounts>> = {
    high: new BucketCounts(QUEUE_BOUNDS),
    normal: new BucketCounts(QUEUE_BOUNDS),
  };
  readonly prefill = new BucketCounts(LATENCY_BOUNDS);
  readonly decode = new BucketCounts(LATENCY_BOUNDS);
  /** Tokens of each request that finished. */
  readonly promptLength = new BucketCounts(LENGTH_BOUNDS);
  readonly outputLength = new BucketCounts(LENGTH_BOUNDS);
  /** Of all requests with a first token. */
  promptTokens = 0;
  outputTokens = 0;
  readonly outcomes: Record<FinishReason, number> = { stop: 0, length: 0, abort: 0, error: 0 };
  readonly errors = new Map<ErrorKind, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Requests that have not ended. */
  get numRunning(): number {
    return this.#numRunning;
  }

  /** @param listener gets each request once, at its end; must not throw */
  onEnd(listener: (record: RequestRecord) => void): void {
    this.#listeners.push(listener);
  }

  /** A request arrives. */
  begin(request: MeteredRequest, origin: RequestOrigin): RequestMeasurement {
    this.#numRunning++;
    return new RequestMeasurement(this, this.#clock, request, origin);
  }

  /** For {@linkcode RequestMeasurement}. */
  take(record: RequestRecord): void {
    this.#numRunning--;
    this.outcomes[record.outcome]++;
    const { errorKind } = record;
    if (errorKind !== null) this.errors.set(errorKind, (this.errors.get(errorKind) ?? 0) + 1);
    addMs(this.queue[record.priority], queueMs(record));
    addMs(this.prefill, record.prefillMs);
    if (record.outcome === "stop" || record.outcome === "length") {
      addMs(this.endToEnd, record.endMs - record.arrivalMs);
      addMs(this.decode, decodeMs(record));
      addMs(this.perToken, tpotMs(record));
      this.promptLength.add(record.promptTokens);
      this.outputLength.add(record.outputTokens);
    }
    for (const listener of this.#listeners) listener(record);
  }

  /** For {@linkcode RequestMeasurement}. */
  takeFirstToken(record: Pick<RequestRecord, "arrivalMs" | "promptTokens">, nowMs: number): void {
    addMs(this.firstToken, nowMs - record.arrivalMs);
    this.promptTokens += record.promptTokens;
  }

  /** For {@linkcode RequestMeasurement}. */
  takeTokens(numTokens: number, gapMs: number | null): void {
    this.outputTokens += numTokens;
    if (gapMs === null) return;
    const seconds = gapMs / numTokens / 1000;
    for (let i = 0; i < numTokens; i++) this.betweenTokens.add(seconds);
  }
}

/** One request while it is measured. */
export class RequestMeasurement {
  readonly #meter: RequestMeter;
  readonly #clock: Clock;
  readonly #request: MeteredRequest;
  readonly #origin: RequestOrigin;
  readonly #arrivalMs: number;
  #firstTokenMs: number | null = null;
  #lastTokenMs = 0;
  #prefillMs: number | null = null;
  #outputTokens = 0;
  #hasEnded = false;
  /** Set when the prompt is tokenised. */
  promptTokens = 0;

  constructor(
    meter: RequestMeter,
    clock: Clock,
    request: MeteredRequest,
    origin: RequestOrigin,
  ) {
    this.#meter = meter;
    this.#clock = clock;
    this.#request = request;
    this.#origin = origin;
    this.#arrivalMs = clock.nowMs();
  }

  /**
   * The path of every token: output arrives.
   * @param prefillMs see {@linkcode RequestRecord.prefillMs}; with the first token
   */
  output(numTokens: number, prefillMs?: number): void {
    if (this.#hasEnded || numTokens === 0) return;
    const nowMs = this.#clock.nowMs();
    this.#outputTokens += numTokens;
    if (this.#firstTokenMs === null) {
      this.#firstTokenMs = nowMs;
      this.#prefillMs = prefillMs ?? null;
      const { promptTokens } = this;
      this.#meter.takeFirstToken({ arrivalMs: this.#arrivalMs, promptTokens }, nowMs);
      this.#meter.takeTokens(numTokens, null);
    } else {
      this.#meter.takeTokens(numTokens, nowMs - this.#lastTokenMs);
    }
    this.#lastTokenMs = nowMs;
  }

  /** The request failed, or was refused. */
  fail(error: unknown): void {
    this.end("error", toErrorRecord(error).kind);
  }

  /** Ends the measurement. A no-op after the first end. */
  end(outcome: FinishReason, errorKind: ErrorKind | null = null): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const { requestId, priority = "normal", sampling } = this.#request;
    const { maxTokens, temperature, topP } = sampling;
    this.#meter.take({
      requestId,
      priority,
      origin: this.#origin,
      sampling: { maxTokens, temperature, topP },
      arrivalMs: this.#arrivalMs,
      firstTokenMs: this.#firstTokenMs,
      endMs: this.#clock.nowMs(),
      prefillMs: this.#prefillMs,
      promptTokens: this.promptTokens,
      outputTokens: this.#outputTokens,
      outcome,
      errorKind: outcome === "error" ? errorKind ?? "internal" : null,
    });
  }
}

function addMs(buckets: BucketCounts, ms: number | null): void {
  if (ms !== null) buckets.add(ms / 1000);
}
