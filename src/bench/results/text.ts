/** The table of a run, with the lines of `vllm bench serve`, which scripts may look for. */
import { type LatencyName, latencyTitles, type Summary } from "../summary.ts";
import type { RunResult } from "../run.ts";
import { percentileName, type ShownOptions } from "./shown.ts";

const WIDTH = 50, LABEL_WIDTH = 40;
/** Different failures that are shown. */
const SHOWN_FAILURES = 5;
/** Requests sent later than this, at P99, tell that the client was too slow. */
const LATE_MS = 20;

export function resultText(result: RunResult, options: ShownOptions): string {
  const { summary, byPriority } = result;
  const { latencies, maxConcurrency, requestRate } = options;
  const lines = [
    centred(" Serving Benchmark Result ", "="),
    line("Successful requests:", String(summary.completed)),
    line("Failed requests:", String(summary.failed)),
    ...(maxConcurrency === null
      ? []
      : [line("Maximum request concurrency:", String(maxConcurrency))]),
    ...(requestRate === null
      ? []
      : [line("Request rate configured (RPS):", requestRate.toFixed(2))]),
    line("Benchmark duration (s):", summary.durationSeconds.toFixed(2)),
    line("Total input tokens:", String(summary.inputTokens)),
    line("Total generated tokens:", String(summary.outputTokens)),
    line("Request throughput (req/s):", summary.requestThroughput.toFixed(2)),
    ...(summary.goodput === null
      ? []
      : [line("Request goodput (req/s):", summary.goodput.toFixed(2))]),
    line("Output token throughput (tok/s):", summary.outputThroughput.toFixed(2)),
    line("Peak output token throughput (tok/s):", summary.peakOutputThroughput.toFixed(2)),
    line("Peak concurrent requests:", summary.peakConcurrency.toFixed(2)),
    line("Total Token throughput (tok/s):", summary.totalThroughput.toFixed(2)),
    ...latencies.flatMap((name) => latencyLines(name, summary, options)),
    ...Object.entries(byPriority ?? {}).flatMap(([priority, part]) => [
      centred(`Requests of ${priority} priority: ${part.completed}`, "-"),
      ...latencies.flatMap((name) => latencyLines(name, part, options).slice(1)),
    ]),
    centred("Client", "-"),
    line("P99 sent late (ms):", summary.lateMs.percentile(99).toFixed(2)),
    ...(maxConcurrency === null
      ? []
      : [line("Mean wait for a place (ms):", summary.waitedMs.mean.toFixed(2))]),
    "=".repeat(WIDTH),
  ];
  return lines.join("\n");
}

function latencyLines(name: LatencyName, summary: Summary, { percentiles }: ShownOptions) {
  const metric = summary.latencies[name];
  const [short, long] = latencyTitles[name];
  return [
    centred(long, "-"),
    line(`Mean ${short} (ms):`, metric.mean.toFixed(2)),
    line(`Median ${short} (ms):`, metric.median.toFixed(2)),
    ...percentiles.map((p) =>
      line(`P${percentileName(p)} ${short} (ms):`, metric.percentile(p).toFixed(2))
    ),
  ];
}

/** What the user should know about a run: failures, a slow client, prompts of other lengths. */
export function remarks({ summary, records, requests, timelineProblem }: RunResult): string[] {
  const found: string[] = [];
  if (summary.failed > 0) {
    const counts = new Map<string, number>();
    for (const { failure } of records) {
      if (failure !== null) counts.set(failure, (counts.get(failure) ?? 0) + 1);
    }
    found.push(`${summary.failed} of ${records.length} requests failed:`);
    for (const [failure, count] of [...counts].slice(0, SHOWN_FAILURES)) {
      found.push(`  ${count} x ${failure}`);
    }
    if (counts.size > SHOWN_FAILURES) found.push(`  and ${counts.size - SHOWN_FAILURES} others`);
  }
  if (records.length < requests.length) {
    found.push(`Stopped after ${records.length} of ${requests.length} requests.`);
  }
  const lateMs = summary.lateMs.percentile(99);
  if (lateMs > LATE_MS) {
    found.push(
      `1% of the requests were sent ${
        lateMs.toFixed(0)
      } ms late or more: this client was too slow, ` +
        "and latencies include its delay.",
    );
  }
  const planned = records.reduce(
    (sum, { failure }, i) => sum + (failure === null ? requests[i].promptTokens : 0),
    0,
  );
  if (planned > 0 && Math.abs(summary.inputTokens / planned - 1) > 0.02) {
    found.push(
      `The server counted ${summary.inputTokens} tokens of prompts, ${planned} were planned ` +
        "(chat templates add some; without /tokenize on the server, lengths are estimates).",
    );
  }
  if (timelineProblem !== null) found.push(`No timeline of instances: ${timelineProblem}`);
  return found;
}

function line(label: string, value: string): string {
  return `${label.padEnd(LABEL_WIDTH)} ${value.padEnd(10)}`.trimEnd();
}

function centred(text: string, fill: string): string {
  const left = Math.floor((WIDTH - text.length) / 2);
  return text.padStart(text.length + Math.max(0, left), fill).padEnd(WIDTH, fill);
}
