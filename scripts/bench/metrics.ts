/**
 * What `/metrics` costs: a scrape of 16 instances, idle and under load, and what a reader that asks without
 * a pause does to a stream of tokens. Instances are simulated, in the process of the
 * API server, whose core they share.
 */
import { type BenchService, startService } from "./service.ts";
import { median, percentile, printTable } from "./table.ts";

const numInstances = 16;
const scrapes = 20;
/** Longer than a text is kept: every scrape makes its own. */
const pauseMs = 600;
const busyMs = 8_000;
const clients = 48;

/** Runs the benchmark. */
export async function benchMetrics(): Promise<void> {
  await using service = await startService([
    ...["--device=sim", "--model=llama-7b", "--speedup=1", "--enable-migration"],
    ...[`--initial-instances=${numInstances}`, "--max-queued-requests=4096"],
    ...["requests", "requests-server", "requests-manager"].map((log) => `--disable-log-${log}`),
  ]);
  const rows = [{ load: "none", ...await scrape(service) }];
  const load = startLoad(service);
  rows.push({ load: `${clients} streams`, ...await scrape(service) });
  printTable(`A scrape of ${numInstances} instances`, rows);
  await benchBusyReader(service);
  load.stop();
}

async function scrape(service: BenchService): Promise<Readonly<Record<string, string>>> {
  await read(service); // loads prom-client
  const times: number[] = [], cpu: number[] = [];
  let text = "";
  for (let i = 0; i < scrapes; i++) {
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    const startMs = performance.now();
    text = await read(service);
    times.push(performance.now() - startMs);
  }
  for (let i = 0; i < scrapes; i++) {
    const startMs = performance.now();
    await read(service);
    cpu.push(performance.now() - startMs);
  }
  return {
    "p50 ms": median(times).toFixed(1),
    "max ms": Math.max(...times).toFixed(1),
    "from the kept text, p50 ms": median(cpu).toFixed(1),
    KiB: (text.length / 1024).toFixed(0),
    samples: String(text.split("\n").filter((line) => line !== "" && line[0] !== "#").length),
  };
}

/** Gaps between the tokens of a stream, with and without a reader that never pauses. */
async function benchBusyReader(service: BenchService): Promise<void> {
  const rows = [];
  for (const readers of [0, 4]) {
    let isOver = false, reads = 0;
    const reading = Array.from({ length: readers }, async () => {
      while (!isOver) {
        await read(service);
        reads++;
      }
    });
    const gaps = await gapsOfStream(service);
    isOver = true;
    await Promise.all(reading);
    rows.push({
      "readers without a pause": String(readers),
      "scrapes/s": (reads / busyMs * 1000).toFixed(0),
      "token gap p50 ms": median(gaps).toFixed(1),
      "p99 ms": percentile(gaps, 99).toFixed(1),
    });
  }
  printTable("A stream of tokens beside readers of /metrics", rows);
}

async function gapsOfStream(service: BenchService): Promise<number[]> {
  const client = new AbortController();
  const gaps: number[] = [];
  const answer = await generate(service, 4_000, client.signal);
  let lastMs = performance.now();
  const untilMs = lastMs + busyMs;
  for await (const _ of answer.body!) {
    const nowMs = performance.now();
    gaps.push(nowMs - lastMs);
    lastMs = nowMs;
    if (nowMs > untilMs) break;
  }
  client.abort();
  return gaps;
}

function startLoad(service: BenchService): { stop(): void } {
  const client = new AbortController();
  for (let i = 0; i < clients; i++) {
    (async () => {
      while (!client.signal.aborted) {
        const answer = await generate(service, 300, client.signal);
        for await (const _ of answer.body!) { /* reads */ }
      }
    })().catch(() => {});
  }
  return { stop: () => client.abort() };
}

function generate({ port }: BenchService, maxTokens: number, signal: AbortSignal) {
  return fetch(`http://127.0.0.1:${port}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      prompt: "hello",
      max_tokens: maxTokens,
      ignore_eos: true,
      stream: true,
    }),
    signal,
  });
}

async function read({ port }: BenchService): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
}
