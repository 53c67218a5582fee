/**
 * What a request costs before a model sees it: CPU of the process of API server and manager, by the length
 * of the prompt, for prompts that are new and for histories that are sent again with one more turn. The
 * share of tokenising is measured apart, in this process. Then what long prompts do to streams beside them.
 */
import { Random } from "../../src/core/random.ts";
import { PromptEncoder } from "../../src/frontend/encoding/prompt_encoder.ts";
import { loadTokenizer, type Tokenizer } from "../../src/frontend/tokenizer.ts";
import { measureBeside } from "./beside_long_prompts.ts";
import { Client, cpuMsOf, startService } from "./service.ts";
import { median, printTable } from "./table.ts";
import { makeWordModel, type WordModel } from "./word_model.ts";

type Kind = "new" | "repeated";

const lengths = [1_000, 10_000, 100_000];
const kinds: readonly Kind[] = ["new", "repeated"];
const turnTokens = 50;
const maxModelLen = 131_072;

/** The machine's other work makes a batch dearer now and then: the median of the batches counts. */
const batches = 5;

/** Requests of a batch: enough for a clock of 10 ms, and few where each takes half a second. */
function batchSize(tokens: number, kind: Kind): number {
  return kind === "new" && tokens > 10_000 ? 2 : 20;
}

/** Runs the benchmark. */
export async function benchRouter(): Promise<void> {
  using model = makeWordModel(maxModelLen);
  await benchCost(model);
  await measureBeside(model, maxModelLen);
}

async function benchCost(model: WordModel): Promise<void> {
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
    for (const kind of kinds) {
      const size = batchSize(tokens, kind);
      const { cpuMs, latencyMs } = await measure(service, prompts(model, tokens, kind), size);
      const tokenisingMs = await measureTokenising(tokenizer, prompts(model, tokens, kind), size);
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
}

/** Prompts one after the other: all new, or one history that grows by a turn. */
function* prompts(
  model: WordModel,
  tokens: number,
  kind: Kind,
): Generator<string> {
  const random = new Random(tokens);
  let history = model.text(tokens, random);
  while (true) {
    yield history;
    if (kind === "new") history = model.text(tokens, random);
    else history += " " + model.text(turnTokens, random);
  }
}

/** @param size requests of a batch; a first batch warms up */
async function measure(
  { port, pid }: { readonly port: number; readonly pid: number },
  prompts: Generator<string>,
  size: number,
): Promise<{ cpuMs: number; latencyMs: number }> {
  using client = await Client.connect(port);
  const cpuMs: number[] = [], latenciesMs: number[] = [];
  for (let batch = 0; batch <= batches; batch++) {
    const beforeMs = cpuMsOf(pid);
    for (let i = 0; i < size; i++) {
      const prompt = prompts.next().value;
      const sentMs = performance.now();
      await client.post("/v1/completions", { prompt, max_tokens: 1 });
      const answer = await client.readBody();
      if (!answer.includes('"completion_tokens":1')) throw new Error(answer.slice(0, 500));
      if (batch > 0) latenciesMs.push(performance.now() - sentMs);
    }
    if (batch > 0) cpuMs.push((cpuMsOf(pid) - beforeMs) / size);
  }
  return { cpuMs: median(cpuMs), latencyMs: median(latenciesMs) };
}

async function measureTokenising(
  tokenizer: Tokenizer,
  prompts: Generator<string>,
  size: number,
): Promise<number> {
  const takeTurn = () => Promise.resolve();
  const encoder = new PromptEncoder({ tokenizer, pool: null, takeTurn });
  const timesMs: number[] = [];
  for (let i = 0; i < 3 * size; i++) {
    const prompt = prompts.next().value;
    const startedMs = performance.now();
    await encoder.encode(prompt, { addSpecialTokens: true, maxTokens: maxModelLen });
    if (i >= size) timesMs.push(performance.now() - startedMs);
  }
  return median(timesMs);
}

if (import.meta.main) await benchRouter();
