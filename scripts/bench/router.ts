/**
 * What a request costs before a model sees it: CPU of the process of API server and manager, by the length
 * of the prompt, for prompts that are new and for histories that are sent again with one more turn. The
 * share of tokenising is measured apart, in this process.
 */
import { Random } from "../../src/core/random.ts";
import { PromptEncoder } from "../../src/frontend/encoding/prompt_encoder.ts";
import { loadTokenizer, type Tokenizer } from "../../src/frontend/tokenizer.ts";
import { type BenchService, Client, cpuMsOf, startService } from "./service.ts";
import { median, percentile, printTable } from "./table.ts";
import { makeWordModel, type WordModel } from "./word_model.ts";

const longPromptTokens = 44_000; // 220 KB
const besideMs = 5_000;

const lengths = [1_000, 10_000, 100_000];
const warmUpRequests = 10;
const measuredRequests = 30;
const turnTokens = 50;
const maxModelLen = 131_072;

/** Runs the benchmark. */
export async function benchRouter(): Promise<void> {
  using model = makeWordModel(maxModelLen);
  const quiet = ["requests", "requests-server", "requests-manager"].map((log) =>
    `--disable-log-${log}`
  );
  const rows = [];
  await using service = await startService([
    ...["--device=null", "--load-format=dummy", `--model=${model.directory}`],
    ...[`--max-model-len=${maxModelLen}`, `--max-num-batched-tokens=${maxModelLen}`, ...quiet],
  ]);
  const tokenizer = await loadTokenizer(model.directory);
  for (const tokens of lengths) {
    for (const kind of ["new", "repeated"] as const) {
      const { cpuMs, latencyMs } = await measure(service, prompts(model, tokens, kind));
      const tokenisingMs = await measureTokenising(tokenizer, prompts(model, tokens, kind));
      rows.push({
        "prompt tokens": String(tokens),
        prompt: kind,
        "CPU ms/request": cpuMs.toFixed(2),
        "of it tokenising": tokenisingMs.toFixed(2),
        "latency p50 ms": latencyMs.toFixed(1),
      });
    }
  }
  printTable("API server and manager, CPU of their process per request of one output token", rows);
  await benchBeside(service, model);
}

/**
 * What long prompts that are new do to short requests beside them, and how many of them get through. A stream
 * of the null executor would take a core for itself; short requests find the same delays.
 */
async function benchBeside(service: BenchService, model: WordModel): Promise<void> {
  const rows = [];
  for (const clients of [0, 1, 32]) {
    const { latenciesMs, prompts } = await shortRequestsBeside(service, model, clients);
    rows.push({
      "clients with long prompts": String(clients),
      "prompts/s": (prompts / besideMs * 1000).toFixed(1),
      "short p50 ms": median(latenciesMs).toFixed(1),
      "short p99 ms": percentile(latenciesMs, 99).toFixed(1),
      "short max ms": Math.max(...latenciesMs).toFixed(1),
    });
  }
  printTable(`Short requests beside prompts of ${longPromptTokens} tokens`, rows);
}

async function shortRequestsBeside({ port }: BenchService, model: WordModel, clients: number) {
  let isOver = false;
  let prompts = 0;
  const longPrompts = Array.from({ length: clients }, async (_, client) => {
    const random = new Random(client);
    using connection = await Client.connect(port);
    while (!isOver) {
      const prompt = model.text(longPromptTokens, random);
      await connection.post("/v1/completions", { prompt, max_tokens: 1 });
      await connection.readBody();
      if (!isOver) prompts++;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  });
  const latenciesMs: number[] = [];
  using short = await Client.connect(port);
  const startedMs = performance.now();
  while (performance.now() - startedMs < besideMs) {
    const sentMs = performance.now();
    await short.post("/v1/completions", { prompt: "Hello", max_tokens: 1 });
    await short.readBody();
    latenciesMs.push(performance.now() - sentMs);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  isOver = true;
  await Promise.all(longPrompts);
  return { latenciesMs, prompts };
}

/** Prompts one after the other: all new, or one history that grows by a turn. */
function* prompts(
  model: WordModel,
  tokens: number,
  kind: "new" | "repeated",
): Generator<string> {
  const random = new Random(tokens);
  let history = model.text(tokens, random);
  while (true) {
    yield history;
    if (kind === "new") history = model.text(tokens, random);
    else history += " " + model.text(turnTokens, random);
  }
}

async function measure(
  { port, pid }: BenchService,
  prompts: Generator<string>,
): Promise<{ cpuMs: number; latencyMs: number }> {
  using client = await Client.connect(port);
  const latenciesMs: number[] = [];
  let startedMs = 0;
  for (let i = 0; i < warmUpRequests + measuredRequests; i++) {
    if (i === warmUpRequests) startedMs = cpuMsOf(pid);
    const sentMs = performance.now();
    const prompt = prompts.next().value;
    await client.post("/v1/completions", { prompt, max_tokens: 1 });
    const answer = await client.readBody();
    if (!answer.includes('"completion_tokens":1')) throw new Error(answer.slice(0, 500));
    if (i >= warmUpRequests) latenciesMs.push(performance.now() - sentMs);
  }
  return {
    cpuMs: (cpuMsOf(pid) - startedMs) / measuredRequests,
    latencyMs: median(latenciesMs),
  };
}

async function measureTokenising(
  tokenizer: Tokenizer,
  prompts: Generator<string>,
): Promise<number> {
  const takeTurn = () => Promise.resolve();
  const encoder = new PromptEncoder({ tokenizer, pool: null, takeTurn });
  const timesMs: number[] = [];
  for (let i = 0; i < warmUpRequests + measuredRequests; i++) {
    const startedMs = performance.now();
    await encoder.encode(prompts.next().value, { addSpecialTokens: true, maxTokens: maxModelLen });
    if (i >= warmUpRequests) timesMs.push(performance.now() - startedMs);
  }
  return median(timesMs);
}

if (import.meta.main) await benchRouter();
