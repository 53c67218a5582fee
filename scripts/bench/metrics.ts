/**
 * What `/metrics` costs: a scrape of 16 instances, idle and under load, and what readers that never pause
 * do to a stream of tokens. Instances are simulated, in the process of the API server. "CPU ms" is what
 * the process takes for a scrape beyond what it takes in the same time without: under load, the difference
 * of two large numbers. Before each scrape, `/health` is asked: it waits as long for the event loop and the
 * cores, and does nothing else.
 */
import { type BenchService, cpuMsOf, startService } from "./service.ts";
import { median, percentile, printTable } from "./table.ts";

const numInstances = 16;
const scrapes = 20;
/** Longer than a text is kept: every scrape makes its own. */
const pauseMs = 600;
const busyMs = 8_000;
/** Streams that run while it is scraped. */
const loads = [0, 48, 256];

/** Runs the benchmark. */
export async function benchMetrics(): Promise<void> {
  await using service = await startService([
    ...["--device=sim", "--model=llama-7b", "--speedup=1", "--enable-migration"],
    ...[`--initial-instances=${numInstances}`, "--max-queued-requests=4096"],
    ...["requests", "requests-server", "requests-manager"].map((log) => `--disable-log-${log}`),
  ]);
  const rows = [];
  for (const streams of loads) {
    const load = startLoad(service, streams);
    rows.push({ streams: String(streams), ...await scrape(service) });
    await load.stop();
  }
  printTable(`A scrape of ${numInstances} instances`, rows);
  const load = startLoad(service, loads[1]);
  await benchBusyReader(service);
  await load.stop();
}

async function scrape(service: BenchService): Promise<Readonly<Record<string, string>>> {
  await read(service);
  const pause = () => new Promise((resolve) => setTimeout(resolve, pauseMs));
  const times: number[] = [], healthTimes: number[] = [];
  let text = "", busyCpuMs = -cpuMsOf(service.pid);
  for (let i = 0; i < scrapes; i++) {
    await pause();
    healthTimes.push(await timeOf(() => read(service, "health")));
    times.push(await timeOf(async () => text = await read(service)));
  }
  busyCpuMs += cpuMsOf(service.pid);
  const idleCpuMs = -cpuMsOf(service.pid);
  for (let i = 0; i < scrapes; i++) {
    await pause();
    await read(service, "health");
  }
  const ownCpuMs = busyCpuMs - (idleCpuMs + cpuMsOf(service.pid));
  return {
    "CPU ms": (ownCpuMs / scrapes).toFixed(1),
    "p50 ms": median(times).toFixed(1),
    "max ms": Math.max(...times).toFixed(1),
    "/health p50 ms": median(healthTimes).toFixed(1),
    "/health max ms": Math.max(...healthTimes).toFixed(1),
    KiB: (text.length / 1024).toFixed(0),
    samples: String(text.split("\n").filter((line) => line !== "" && line[0] !== "#").length),
  };
}

async function timeOf(act: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await act();
  return performance.now() - startMs;
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

/** Streams that begin again when they end. */
function startLoad(service: BenchService, streams: number): { stop(): Promise<void> } {
  const client = new AbortController();
  const ends = Array.from({ length: streams }, async () => {
    try {
      while (!client.signal.aborted) {
        const answer = await generate(service, 300, client.signal);
        for await (const _ of answer.body!) { /* reads */ }
      }
    } catch (error) {
      if (!client.signal.aborted) throw error;
    }
  });
  return {
    stop: async () => {
      client.abort();
      await Promise.all(ends);
    },
  };
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

async function read({ port }: BenchService, path = "metrics"): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${port}/${path}`)).text();
}
