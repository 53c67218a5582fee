/** The results of a run with the keys of `vllm bench serve --save-result`. */
import { type LatencyName, ttftMs } from "../summary.ts";
import type { RunResult } from "../run.ts";
import { percentileName, type ShownOptions } from "./shown.ts";

/** The fields of a result file that are no figures: when, with which server and load it was made. */
export interface ResultIdentity {
  /** "20261129-234200", in local time. */
  readonly date: string;
  readonly backend: string;
  readonly label: string | null;
  readonly modelId: string;
  readonly tokenizerId: string;
  readonly numPrompts: number;
  /** Of `--metadata`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** `request_rate`, `burstiness`, and with `--ramp-up-strategy` the fields of the ramp. */
  readonly traffic: Readonly<Record<string, number | string>>;
  /** This program's own figures go under its name, beside vLLM's. */
  readonly own: Readonly<Record<string, unknown>>;
}

/** @param isDetailed whether to add what vLLM adds with `--save-detailed`: a value for each request */
export function resultJson(
  result: RunResult,
  identity: ResultIdentity,
  shown: ShownOptions,
  isDetailed: boolean,
): Record<string, unknown> {
  const { summary, timeline } = result;
  const { date, backend, label, modelId, tokenizerId, numPrompts } = identity;
  return {
    date,
    endpoint_type: backend,
    backend,
    label,
    model_id: modelId,
    tokenizer_id: tokenizerId,
    num_prompts: numPrompts,
    ...identity.metadata,
    ...identity.traffic,
    max_concurrency: shown.maxConcurrency,
    duration: summary.durationSeconds,
    completed: summary.completed,
    failed: summary.failed,
    total_input_tokens: summary.inputTokens,
    total_output_tokens: summary.outputTokens,
    request_throughput: summary.requestThroughput,
    request_goodput: summary.goodput,
    output_throughput: summary.outputThroughput,
    total_token_throughput: summary.totalThroughput,
    ...(isDetailed ? detailsOf(result) : {}),
    max_output_tokens_per_s: summary.peakOutputThroughput,
    max_concurrent_requests: summary.peakConcurrency,
    ...Object.assign({}, ...shown.latencies.map((name) => figuresOf(result, name, shown))),
    llumnix: {
      ...identity.own,
      p99_sent_late_ms: summary.lateMs.percentile(99),
      mean_waited_for_place_ms: summary.waitedMs.mean,
      migrations_seen: timeline?.migrations.length ?? null,
      failures: failuresOf(result),
    },
  };
}

/** Seconds, as vLLM's. */
function detailsOf({ records, requests, startMs }: RunResult) {
  const isGood = (i: number) => records[i].failure === null;
  return {
    input_lens: records.map(({ promptTokens }, i) => promptTokens ?? requests[i].promptTokens),
    output_lens: records.map(({ outputTokens }, i) => isGood(i) ? outputTokens : 0),
    ttfts: records.map((record, i) => isGood(i) ? ttftMs(record) / 1000 : 0),
    itls: records.map(({ gapsMs }) => gapsMs.map((ms) => ms / 1000)),
    start_times: records.map(({ dueMs }) => (dueMs - startMs) / 1000),
    generated_texts: records.map(({ text }) => text),
    errors: records.map(({ failure }) => failure ?? ""),
  };
}

function figuresOf({ summary }: RunResult, name: LatencyName, { percentiles }: ShownOptions) {
  const metric = summary.latencies[name];
  return {
    [`mean_${name}_ms`]: metric.mean,
    [`median_${name}_ms`]: metric.median,
    [`std_${name}_ms`]: metric.std,
    ...Object.fromEntries(
      percentiles.map((p) => [`p${percentileName(p)}_${name}_ms`, metric.percentile(p)]),
    ),
  };
}

/** How often each failure came. */
function failuresOf({ records }: RunResult): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { failure } of records) {
    if (failure !== null) counts[failure] = (counts[failure] ?? 0) + 1;
  }
  return counts;
}
