import assert from "node:assert/strict";
import { Metric } from "../../src/bench/metric.ts";
import type { LoadResult, RequestRecord } from "../../src/bench/open_loop.ts";
import { compareRuns, comparisonTable, markedTable } from "../../src/bench/results/comparison.ts";
import { resultCsv, resultTrace } from "../../src/bench/results/csv.ts";
import { resultReport } from "../../src/bench/results/html.ts";
import { resultJson } from "../../src/bench/results/json.ts";
import { comparisonSentence, runSentence } from "../../src/bench/results/sentence.ts";
import { remarks, resultText } from "../../src/bench/results/text.ts";
import type { RunResult } from "../../src/bench/run.ts";
import { summarize } from "../../src/bench/summary.ts";
import { renderReport } from "../../src/report/html.ts";

const startMs = 1_000_000;

/** A request that is due at `due`; its tokens come at `tokens`, in milliseconds after the start. */
function record(due: number, tokens: number[], more: Partial<RequestRecord> = {}): RequestRecord {
  return {
    plannedMs: startMs + due,
    dueMs: startMs + due,
    sentMs: startMs + due,
    firstMs: startMs + (tokens[0] ?? NaN),
    lastMs: startMs + (tokens.at(-1) ?? NaN),
    gapsMs: tokens.slice(1).map((ms, i) => ms - tokens[i]),
    endMs: startMs + (tokens.at(-1) ?? due),
    outputTokens: tokens.length,
    promptTokens: null,
    text: "x",
    failure: null,
    ...more,
  };
}

const load: LoadResult = {
  startMs,
  endMs: startMs + 2000,
  records: [
    record(0, [100, 120, 160], { promptTokens: 7 }),
    record(500, [1700]),
    record(600, [], { failure: 'HTTP 503, "full"' }),
  ],
};

const request = { prompt: "p", promptTokens: 5, outputTokens: 3, recordedMs: null };
const result: RunResult = {
  ...{ startMs, endMs: load.endMs, records: load.records },
  requests: load.records.map(({ plannedMs }) => ({
    ...request,
    arrivalMs: plannedMs - startMs,
    priority: "normal",
  })),
  summary: summarize(load, [5, 5, 5], { ttft: 200, e2el: 1000 }),
  byPriority: null,
  timeline: {
    intervalMs: 500,
    looks: [{
      atMs: startMs + 10,
      instances: [{
        ...{ id: "i1", state: "serving", usedBlocks: 5, totalBlocks: 10 },
        ...{ runningRequests: 2, waitingRequests: 0 },
      }],
    }],
    migrations: [{ atMs: startMs + 900, request: "r", from: "i1", to: "i2" }],
  },
  timelineProblem: null,
};
const shown = {
  latencies: ["ttft", "tpot", "itl", "e2el"],
  percentiles: [50, 99.9],
  maxConcurrency: null,
  requestRate: 2,
} as const;

Deno.test("figures have vLLM's definitions", () => {
  const { summary } = result;
  assert.deepEqual([summary.completed, summary.failed, summary.durationSeconds], [2, 1, 2]);
  // The server counted the first prompt; the second is as planned; a failed request counts nothing.
  assert.deepEqual([summary.inputTokens, summary.outputTokens], [12, 4]);
  assert.deepEqual([summary.requestThroughput, summary.outputThroughput], [1, 2]);
  assert.deepEqual([summary.totalThroughput, summary.goodput], [8, 0.5]);
  const { ttft, tpot, itl, e2el } = summary.latencies;
  assert.deepEqual([...ttft.sorted], [100, 1200]);
  assert.deepEqual([...tpot.sorted], [30]);
  assert.deepEqual([...itl.sorted], [20, 40]);
  assert.deepEqual([...e2el.sorted], [160, 1200]);
  assert.deepEqual([summary.peakOutputThroughput, summary.peakConcurrency], [3, 2]);
});

Deno.test("mean, deviation and percentiles are numpy's", () => {
  const metric = new Metric([4, 1, 2, 3]);
  assert.deepEqual([metric.mean, metric.median, metric.percentile(90)], [2.5, 2.5, 3.7]);
  assert.ok(Math.abs(metric.std - 1.118033988749895) < 1e-12);
  assert.deepEqual([new Metric([]).mean, new Metric([]).percentile(99)], [0, 0]);
});

Deno.test("the table has the lines of vLLM's, and failures are told", () => {
  const text = resultText(result, shown);
  for (
    const line of [
      "============ Serving Benchmark Result ============",
      "Successful requests:                     2",
      "Request rate configured (RPS):           2.00",
      "Request goodput (req/s):                 0.50",
      "---------------Time to First Token----------------",
      "Median TTFT (ms):                        650.00",
      "P99.9 ITL (ms):                          39.98",
    ]
  ) assert.ok(text.split("\n").includes(line), `no line "${line}" in\n${text}`);
  assert.deepEqual(remarks(result).slice(0, 2), [
    "1 of 3 requests failed:",
    '  1 x HTTP 503, "full"',
  ]);
});

Deno.test("the JSON has the keys of vLLM's", () => {
  const identity = {
    ...{ date: "20260101-000000", backend: "openai", label: null, modelId: "m", tokenizerId: "m" },
    ...{ numPrompts: 3, metadata: { tp: "1" }, traffic: { request_rate: 2 }, own: {} },
  };
  const json = resultJson(result, identity, shown, true);
  assert.equal(json.tp, "1");
  assert.deepEqual(json.ttfts, [0.1, 1.2, 0]);
  assert.deepEqual(json.itls, [[0.02, 0.04], [], []]);
  assert.deepEqual(json.output_lens, [3, 1, 0]);
  assert.deepEqual(json.errors, ["", "", 'HTTP 503, "full"']);
  assert.deepEqual([json.median_ttft_ms, json.p50_tpot_ms, json.mean_itl_ms], [650, 30, 30]);
  assert.equal("ttfts" in resultJson(result, identity, shown, false), false);
  JSON.stringify(json);
});

Deno.test("the CSV has a row for each request, failed ones too", () => {
  const [header, ...rows] = resultCsv(result).trimEnd().split("\n");
  assert.match(header, /^request,planned_s,due_s,sent_s,end_s,ttft_ms,/);
  assert.equal(rows[0], "0,0,0,0,0.16,100,30,160,40,7,3,normal,");
  assert.equal(rows[2], '2,0.6,0.6,0.6,0.6,,,,,5,0,normal,"HTTP 503, ""full"""');
});

Deno.test("the trace has the completed requests, as llumnix simulate reads them", () => {
  assert.deepEqual(resultTrace(result).trimEnd().split("\n").map((row) => JSON.parse(row)), [
    { time: 0, prompt_tokens: 7, output_tokens: 3, priority: "normal" },
    { time: 0.5, prompt_tokens: 5, output_tokens: 1, priority: "normal" },
  ]);
});

Deno.test("the report shows distributions, instances and migrations", () => {
  const report = resultReport(
    { lead: runSentence(result), notes: ["note"] },
    [{ name: "this server", result, server: 0 }],
    shown,
  );
  assert.deepEqual(
    [report.lead, ...report.sections.map(({ title }) => title)],
    [
      "1 of 3 requests failed. Median time to first token 650 ms, P99 1189 ms; median time per token " +
      "30.0 ms; 1.00 requests and 2.00 output tokens a second.",
      ...["Figures", "Latencies", "Over time", "Instances and migrations"],
    ],
  );
  const page = renderReport(report);
  for (const text of ["Time to First Token", "KV cache in use", "Migrations so far"]) {
    assert.ok(page.includes(text), `${text} is not on the page`);
  }
  assert.ok(
    !/NaN|undefined|Infinity/.test(page),
    /.{40}(NaN|undefined|Infinity).{40}/.exec(page)?.[0],
  );
});

Deno.test("a comparison has medians over the rounds, and ratios", () => {
  const slower = { ...result, summary: summarize({ ...load, endMs: startMs + 4000 }, [5, 5, 5]) };
  const figures = compareRuns([result, result, slower], [slower, slower, slower], shown);
  const requests = figures.find(({ name }) => name === "Requests/s")!;
  assert.deepEqual([requests.a, requests.b, requests.ratio], [1, 0.5, 0.5]);
  const { header, rows } = comparisonTable(figures, 3);
  assert.deepEqual(header, ["medians of 3 rounds", "A", "B", "B / A in a round"]);
  assert.deepEqual(rows[1], ["Requests/s", "1.00", "0.500", "0.500x (0.500x to 1.00x)"]);
  const marked = (name: string, ratio: number | null) =>
    markedTable([{ name, a: 1, b: 1, ratio, ratioRange: [ratio!, ratio!] }], 1).rows[0][3];
  assert.deepEqual(marked("Requests/s", 0.5), { text: "0.500x", verdict: "worse" });
  assert.deepEqual(marked("Mean TTFT (ms)", 0.5), { text: "0.500x", verdict: "better" });
  assert.deepEqual(marked("Mean TTFT (ms)", 1.01), "1.01x");
  assert.deepEqual(marked("Failed requests", null), "");
  assert.equal(
    comparisonSentence(figures, 3),
    "B against A: Output tokens/s 0.500x, Median TTFT 1.00x, Median TPOT 1.00x; medians of 3 rounds.",
  );
});
