/**
 * What tokenising long prompts that are new does to the streams of others, and how many of them get through.
 * The prompts go to /tokenize and the streams come from a simulated device, so that the model's prefill, which
 * delays streams too, has no part in it.
 */
import { AskedWorker } from "../../test/e2e/asked_worker.ts";
import type { LongPromptOrder, LongPromptReport } from "./_long_prompts.ts";
import { type BenchService, Client, cpuMsOf, startService } from "./service.ts";
import { percentile, printTable } from "./table.ts";
import type { WordModel } from "./word_model.ts";

const promptWords = 44_000; // 220 KB
const stepMs = 20;
const streams = 4;
const clientCounts = [0, 1, 32];
const durationMs = 6_000;

export async function measureBeside(model: WordModel, maxModelLen: number): Promise<void> {
  const profile = `${model.directory}/profile.json`;
  await Deno.writeTextFile(profile, JSON.stringify(profileOf(model, maxModelLen)));
  await using service = await startService([
    ...[`--profiling-result-file-path=${profile}`, `--model=${model.directory}`],
    ...["--instance-isolation=process", `--max-model-len=${maxModelLen}`],
    ...[`--max-num-batched-tokens=${maxModelLen}`, "--disable-log-requests"],
  ]);
  using prompts = new AskedWorker<LongPromptOrder, LongPromptReport>(
    new URL("_long_prompts.ts", import.meta.url),
  );
  await prompts.ready;
  // The workers of the tokenizer start.
  await prompts.ask({ port: service.port, clients: 8, words: promptWords, durationMs: 3_000 });
  const rows = [];
  for (const clients of clientCounts) {
    const beforeMs = cpuMsOf(service.pid);
    const sending = prompts.ask({ port: service.port, clients, words: promptWords, durationMs });
    const gapsMs = await streamGaps(service);
    const usedMs = cpuMsOf(service.pid) - beforeMs;
    rows.push({
      "clients": String(clients),
      "prompts/s": (await sending / durationMs * 1000).toFixed(1),
      "cores used": (usedMs / durationMs).toFixed(2),
      "gap p50 ms": percentile(gapsMs, 50).toFixed(1),
      "p99 ms": percentile(gapsMs, 99).toFixed(1),
      "max ms": Math.max(...gapsMs).toFixed(1),
    });
  }
  printTable(
    `${streams} streams of a token every ${stepMs} ms, beside clients of /tokenize with prompts of ` +
      `${promptWords} tokens (220 KB)`,
    rows,
  );
}

/** Times between two events of the streams, for as long as prompts are sent. */
async function streamGaps({ port }: BenchService): Promise<number[]> {
  const gapsMs: number[] = [];
  const maxTokens = durationMs / stepMs;
  await Promise.all(Array.from({ length: streams }, async () => {
    using client = await Client.connect(port);
    await client.post("/v1/completions", { prompt: "a", max_tokens: maxTokens, stream: true });
    let lastMs: number | null = null;
    await client.readEvents(() => {
      const nowMs = performance.now();
      if (lastMs !== null) gapsMs.push(nowMs - lastMs);
      lastMs = nowMs;
    });
  }));
  return gapsMs;
}

/** A device on which every step takes the same time. */
function profileOf({ directory }: WordModel, maxModelLen: number): unknown {
  const shape = { dtype: "float16", num_layers: 1, num_kv_heads: 1, head_dim: 8 };
  const step = { ms_per_step: stepMs, ms_per_token: 0 };
  return {
    version: 1,
    models: [{
      model: directory.split("/").at(-1),
      shape: { ...shape, max_model_len: maxModelLen },
      prefill: { ...step, ms_per_step: 1 },
      decode: { ...step, ms_per_sequence: 0 },
      blocks: [{
        ...{ gpu_memory_utilization: 0.9, block_size: 16, max_batched_tokens: null },
        num_blocks: 200_000,
      }],
      migration: { gbps: 10 },
      swap: { gbps: 10 },
    }],
  };
}
