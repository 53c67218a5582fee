/**
 * Cost of the service around the model: the null executor computes nothing, so all time is spent in
 * scheduling, bus, text and HTTP. The client runs on the same machine, and the figures include its time.
 */
import { Client, startService } from "./service.ts";
import { percentile, printTable } from "./table.ts";

const streams = 64;
const tokensPerStream = 2000;
const shortRequests = 3000;
const rounds = 3;

interface StreamResult {
  readonly tokensPerSecond: number;
  /** Milliseconds between two tokens of a stream, as the client sees them. */
  readonly gapsMs: number[];
}

async function benchStreams(port: number, count: number, tokens: number): Promise<StreamResult> {
  const clients = await Promise.all(Array.from({ length: count }, () => Client.connect(port)));
  const gapsMs: number[] = [];
  const startedMs = performance.now();
  await Promise.all(clients.map(async (client) => {
    const body = { prompt: "Hello", max_tokens: tokens, ignore_eos: true, stream: true };
    await client.post("/v1/completions", body);
    let events = 0, lastMs = 0;
    await client.readEvents((newEvents) => {
      const nowMs = performance.now();
      if (events > 0 && newEvents > 0) {
        // Of tokens that arrive together, the first gets the whole gap and the others get 0.
        gapsMs.push(nowMs - lastMs);
        for (let i = 1; i < newEvents; i++) gapsMs.push(0);
      }
      events += newEvents;
      lastMs = nowMs;
    });
    if (events !== tokens) throw new Error(`a stream had ${events} events, expected ${tokens}`);
  }));
  const seconds = (performance.now() - startedMs) / 1000;
  for (const client of clients) client[Symbol.dispose]();
  return { tokensPerSecond: count * tokens / seconds, gapsMs };
}

async function benchShortRequests(port: number): Promise<number> {
  const clients = await Promise.all(Array.from({ length: 32 }, () => Client.connect(port)));
  const startedMs = performance.now();
  await Promise.all(clients.map(async (client) => {
    for (let i = 0; i < shortRequests / clients.length; i++) {
      await client.post("/v1/completions", { prompt: "Hello", max_tokens: 1 });
      const answer = await client.readBody();
      if (!answer.includes('"completion_tokens":1')) throw new Error(`unexpected: ${answer}`);
    }
  }));
  const seconds = (performance.now() - startedMs) / 1000;
  for (const client of clients) client[Symbol.dispose]();
  return shortRequests / seconds;
}

/** Runs the benchmark. */
export async function benchServer(): Promise<void> {
  const quiet = ["requests", "requests-server", "requests-manager"].map((log) =>
    `--disable-log-${log}`
  );
  await using service = await startService(["--device=null", ...quiet]);
  await benchStreams(service.port, streams, 200); // warm
  const rows = [];
  for (let round = 1; round <= rounds; round++) {
    const many = await benchStreams(service.port, streams, tokensPerStream);
    const one = await benchStreams(service.port, 1, tokensPerStream);
    const short = await benchShortRequests(service.port);
    const ms = (result: StreamResult, p: number) => percentile(result.gapsMs, p).toFixed(3);
    rows.push({
      round: String(round),
      "64 streams tok/s": many.tokensPerSecond.toFixed(0),
      "gap p50 ms": ms(many, 50),
      "gap p99 ms": ms(many, 99),
      "1 stream tok/s": one.tokensPerSecond.toFixed(0),
      "1 stream gap p99 ms": ms(one, 99),
      "short requests/s": short.toFixed(0),
    });
  }
  printTable("Server with the null executor, through HTTP", rows);
}

if (import.meta.main) await benchServer();
