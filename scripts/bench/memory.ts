/**
 * Finds leaks of a service: resident memory and open files of the server and of each instance after
 * 2,000 short requests and after 20,000, while requests move between instances all the time.
 */
import { textTable } from "../../src/report/text_table.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import { type BenchService, Client, collectAll, startService } from "./service.ts";

const stages = [2_000, 5_000, 10_000, 15_000, 20_000];
const clients = 16;
/**
 * Number of words of a prompt that no other prompt has. So the tokenizer's cache of 10,000 words is full
 * after the first stage.
 */
const ownWords = 8;
/** Short requests end before they can move, so some long requests, which do move, run beside them. */
const longClients = 4, longTokens = 1_500;
/** The garbage collector runs when the process is idle; the least of some samples counts. */
const settleMs = 4_000, samples = 8, sampleIntervalMs = 500;

/** Options with which instances exchange requests all the time. */
const restless = [
  ...["--initial-instances=2", "--enable-migration", "--enable-defrag=true"],
  ...["--pair-migration-policy=defrag_relaxed", "--migrate-out-threshold=0.01"],
  ...["--polling-interval=0.01", "--request-migration-policy=LCR"],
];

interface Footprint {
  readonly residentBytes: number;
  readonly openFiles: number;
}

/** Runs the benchmark. */
export async function benchMemory(): Promise<void> {
  for (const backend of ["gloo", "rayrpc"]) await benchBackend(backend);
}

async function benchBackend(backend: string): Promise<void> {
  let moves = 0;
  await using service = await startService([
    ...[...restless, `--migration-backend=${backend}`, "--num-gpu-blocks-override=2000"],
    ...["--swap-space=0", "--disable-log-requests"],
  ], { onLog: (line) => moves += movesIn(line), env: collectAll });
  const rows: string[][] = [];
  let done = 0, first: Map<string, Footprint> | null = null;
  for (const stage of stages) {
    const isOver = { value: false };
    const moving = runLongRequests(service, isOver);
    await runRequests(service, done, stage);
    isOver.value = true;
    await moving;
    done = stage;
    const footprints = await settledFootprints(service);
    first ??= footprints;
    for (const [name, { residentBytes, openFiles }] of footprints) {
      const growth = residentBytes / first.get(name)!.residentBytes - 1;
      rows.push([
        `${stage} requests, ${name}`,
        (residentBytes / (1 << 20)).toFixed(1),
        `${(100 * growth).toFixed(1)}%`,
        `${openFiles}`,
        `${moves}`,
      ]);
    }
  }
  console.log(`\nMemory of a service whose requests move by ${backend}`);
  console.log(textTable(["after", "MiB resident", "growth", "open files", "moves so far"], rows));
}

/** Each logged line of statistics counts the moves since the previous one. */
function movesIn(line: string): number {
  return Number(/: migrations (\d+), /.exec(line)?.[1] ?? 0);
}

function promptOf(request: number): string {
  const words = Array.from({ length: ownWords }, (_, i) => ownWords * request + i);
  return "request ".repeat(1 + request % 5) + words.join(" ");
}

/** Sends requests `from` to `to`, of 48 tokens each, over keep-alive connections. */
async function runRequests({ port }: BenchService, from: number, to: number): Promise<void> {
  let next = from;
  await Promise.all(Array.from({ length: clients }, async () => {
    using client = await Client.connect(port);
    for (let i = next++; i < to; i = next++) {
      const prompt = promptOf(i);
      await client.post("/v1/completions", { prompt, max_tokens: 48, ignore_eos: true, seed: i });
      const answer = await client.readBody();
      if (!answer.includes('"completion_tokens":48')) throw new Error(`unexpected: ${answer}`);
    }
  }));
}

async function runLongRequests({ port }: BenchService, isOver: { value: boolean }): Promise<void> {
  await Promise.all(Array.from({ length: longClients }, async () => {
    using client = await Client.connect(port);
    while (!isOver.value) {
      const body = { prompt: "Once upon a time", max_tokens: longTokens, ignore_eos: true };
      await client.post("/v1/completions", body);
      await client.readBody();
    }
  }));
}

async function settledFootprints({ pid }: BenchService): Promise<Map<string, Footprint>> {
  await sleep(realClock, settleMs);
  const least = new Map<string, Footprint>();
  for (let i = 0; i < samples; i++) {
    for (const [name, now] of footprints(pid)) {
      const { residentBytes } = least.get(name) ?? now;
      least.set(name, { ...now, residentBytes: Math.min(residentBytes, now.residentBytes) });
    }
    await sleep(realClock, sampleIntervalMs);
  }
  return least;
}

function* footprints(pid: number): Generator<[name: string, Footprint]> {
  const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ");
  for (const [i, one] of [pid, ...children].entries()) {
    const status = Deno.readTextFileSync(`/proc/${one}/status`);
    const residentBytes = 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)![1]);
    const openFiles = [...Deno.readDirSync(`/proc/${one}/fd`)].length;
    yield [i === 0 ? "server" : `instance ${i - 1}`, { residentBytes, openFiles }];
  }
}

if (import.meta.main) await benchMemory();
