/**
 * How exact `llumnix bench` measures, and how many streams one process drives: streams from a server of known
 * latencies, which runs in a process of its own and tells when it really wrote each token.
 */
import process from "node:process";
import { completions } from "../../src/bench/backends/openai.ts";
import { Metric } from "../../src/bench/metric.ts";
import { loadOf, runBenchmark } from "../../src/bench/run.ts";
import { Target } from "../../src/bench/target.ts";
import { realClock } from "../../src/core/clock.ts";
import type { Truth } from "./fake_server.ts";
import { printTable } from "./table.ts";

const ttftMs = 200, tpotMs = 100, tokensPerStream = 100;
/** Streams at once: all of them start within `tokensPerStream * tpotMs`. */
const streamCounts = [50, 500, 2000];

/** Runs the benchmark. */
export async function benchLoadGenerator(): Promise<void> {
  const rows = [];
  for (const streams of streamCounts) rows.push(await measure(streams));
  printTable(
    `Load generator: TTFT ${ttftMs} ms, TPOT ${tpotMs} ms, ${tokensPerStream} tokens a stream`,
    rows,
  );
}

async function measure(streams: number): Promise<Record<string, string>> {
  await using server = await startFake();
  const baseUrl = new URL(`http://127.0.0.1:${server.port}`);
  const target = new Target({ baseUrl, headers: {}, clock: realClock });
  const request = {
    prompt: "the ".repeat(100).trim(),
    ...{ promptTokens: 100, outputTokens: tokensPerStream, recordedMs: null, priority: null },
  };
  const rate = streams / (tokensPerStream * tpotMs / 1000);
  const requests = loadOf(
    Array.from({ length: streams }, () => request),
    { kind: "rate", rate, burstiness: Infinity },
    { seed: 0, highPriority: 0 },
  );
  const cpuBefore = cpuMs();
  const result = await runBenchmark(target, requests, {
    backend: completions,
    endpoint: "/v1/completions",
    settings: { model: "fake", ignoreEos: true, logprobs: null, extraBody: {} },
    requestIdPrefix: "bench-",
    maxConcurrency: Infinity,
    numWarmups: 20,
    goodput: {},
    admin: null,
    clock: realClock,
    signal: new AbortController().signal,
    onProgress: () => {},
  });
  const cores = (cpuMs() - cpuBefore) / (result.endMs - result.startMs);
  const truths = await target.json("GET", "/truth") as Truth[];
  target.close();
  const { latencies: { ttft, tpot }, failed, peakConcurrency, lateMs } = result.summary;
  const trueTtft = new Metric(truths.map((truth) => truth.ttftMs));
  const trueTpot = new Metric(
    truths.map((truth) => (truth.e2eMs - truth.ttftMs) / (truth.tokens - 1)),
  );
  const pair = (measured: number, real: number) => `${measured.toFixed(1)} (${real.toFixed(1)})`;
  return {
    "streams": String(streams),
    "at once": String(peakConcurrency),
    "failed": String(failed),
    "TTFT P50 (server's) ms": pair(ttft.median, trueTtft.median),
    "P99": pair(ttft.percentile(99), trueTtft.percentile(99)),
    "TPOT P50 (server's) ms": pair(tpot.median, trueTpot.median),
    "sent late P99 ms": lateMs.percentile(99).toFixed(1),
    "client's cores": cores.toFixed(2),
  };
}

/** Processor time of this process. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function startFake(): Promise<{ readonly port: number } & AsyncDisposable> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", new URL("fake_server.ts", import.meta.url).pathname, "0"],
      ...[`${ttftMs}`, `${tpotMs}`],
    ],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const port = Number(new TextDecoder().decode(value));
  return {
    port,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await reader.cancel();
      await child.status;
    },
  };
}

if (import.meta.main) await benchLoadGenerator();
