/**
 * Live migration between two real instance processes with the CPU executor, one thread each: random
 * weights of a 135M shape in bfloat16. Downtime by length, what the rest of the batch notices of a
 * migration, and bytes per second against a plain TCP copy of the same run.
 */
import type { MigrationBackendOptions } from "../../src/core/options.ts";
import { InstancePair, sleep } from "./instance_pair.ts";
import { plainCopy } from "./plain_copy.ts";
import { median, percentile, printTable } from "./table.ts";

const lengths = [256, 1024, 4096];
const movesPerLength = 14;
const batch = 8;
const batchTokens = 256;
/** Migrations during which the others' steps are timed. */
const disturbances = 40;
/** Steps before a migration with which those during it are compared. */
const quietMs = 150;
const copyBytes = 1 << 30;

const config = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
  torch_dtype: "bfloat16",
  vocab_size: 49152,
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
};

type BackendName = MigrationBackendOptions["migrationBackend"];

function argvFor(model: string, backend: BackendName): string[] {
  return [
    `--model=${model}`,
    "--load-format=dummy",
    "--device=cpu",
    "--cpu-threads=1",
    "--swap-space=0",
    "--max-model-len=8192",
    "--num-gpu-blocks-override=1200",
    "--enable-migration",
    `--migration-backend=${backend}`,
    "--max-stages=20",
  ];
}

const backends = ["gloo", "rayrpc"] as const;

/** Runs the benchmark. */
export async function benchMigration(
  names: readonly BackendName[] = backends,
): Promise<void> {
  const model = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${model}/config.json`, JSON.stringify(config));
    for (const backend of names) {
      await using pair = await InstancePair.start(argvFor(model, backend));
      await sleep(500); // the group is formed
      await benchDowntime(pair, backend);
      await benchSpeed(pair, backend);
      await benchDisturbance(pair, backend);
    }
  } finally {
    await Deno.remove(model, { recursive: true });
  }
}

async function beginBatch(pair: InstancePair, size: number): Promise<string[]> {
  const ids = Array.from({ length: size }, (_, i) => `other-${i}`);
  for (const id of ids) await pair.begin(pair.instances[0], id, batchTokens);
  return ids;
}

async function benchDowntime(pair: InstancePair, backend: BackendName): Promise<void> {
  const [a, b] = pair.instances;
  const startedMs = performance.now();
  await pair.begin(a, "whole", lengths.at(-1)!);
  const recomputeMs = performance.now() - startedMs;
  await pair.abort("whole");
  const others = await beginBatch(pair, batch);
  a.stepMs.length = 0;
  await sleep(1_500);
  const stepMs = median(intervals(a.stepMs));
  await pair.abort(others[0]);
  const rows = [];
  const medians: number[] = [];
  for (const tokens of lengths) {
    const moving = await pair.begin(a, "moving", tokens);
    const downtimes: number[] = [], gaps: number[] = [];
    for (let i = 0; i < movesPerLength; i++) {
      const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
      const first = moving.tokenMs.length;
      const { downtimeMs } = await pair.migrate(from, to, "moving");
      await sleep(100);
      downtimes.push(downtimeMs);
      gaps.push(Math.max(...intervals(moving.tokenMs.slice(Math.max(0, first - 1)))));
    }
    await pair.abort("moving");
    medians.push(median(downtimes));
    rows.push({
      "tokens": String(tokens),
      "downtime ms": median(downtimes).toFixed(2),
      "p90": percentile(downtimes, 90).toFixed(2),
      "longest gap of its stream ms": median(gaps).toFixed(1),
      "of a decode step": `${(100 * median(downtimes) / stepMs).toFixed(0)}%`,
      "recompute / downtime": tokens === lengths.at(-1)
        ? (recomputeMs / median(downtimes)).toFixed(0)
        : "",
    });
  }
  await pair.abort(...others);
  printTable(
    `Migration by ${backend}, batch of ${batch}: decode step ${stepMs.toFixed(1)} ms, ` +
      `${lengths.at(-1)} tokens computed again ${recomputeMs.toFixed(0)} ms; downtime max / min ` +
      (Math.max(...medians) / Math.min(...medians)).toFixed(2),
    rows,
  );
}

async function benchSpeed(pair: InstancePair, backend: BackendName): Promise<void> {
  const [a, b] = pair.instances;
  await pair.begin(a, "moving", lengths.at(-1)!);
  const speeds: number[] = [], copies: number[] = [];
  for (let i = 0; i < movesPerLength; i++) {
    const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
    const { transfer: { bytes, transferMs } } = await pair.migrate(from, to, "moving");
    speeds.push(bytes / transferMs / 1e6);
    if (i % 2 === 0) copies.push(await plainCopy(copyBytes));
  }
  await pair.abort("moving");
  printTable(`Blocks of ${lengths.at(-1)} tokens by ${backend}, median`, [{
    "GB/s": median(speeds).toFixed(2),
    "plain TCP copy GB/s": median(copies).toFixed(2),
    "ratio": `${(100 * median(speeds) / median(copies)).toFixed(0)}%`,
  }]);
}

/** Steps of the source while a request of it is being copied, against those just before. */
async function benchDisturbance(pair: InstancePair, backend: BackendName): Promise<void> {
  const [a, b] = pair.instances;
  const others = await beginBatch(pair, batch);
  await pair.begin(a, "moving", lengths.at(-1)!);
  const quiet: number[] = [], during: number[] = [];
  let copiedMs = 0;
  for (let i = 0; i < disturbances; i++) {
    a.stepMs.length = 0;
    await sleep(quietMs);
    const fromMs = performance.now();
    const { totalMs, downtimeMs } = await pair.migrate(a, b, "moving");
    const toMs = fromMs + totalMs - downtimeMs;
    copiedMs += totalMs - downtimeMs;
    for (const { ms, middleMs } of steps(a.stepMs)) {
      if (middleMs < fromMs) quiet.push(ms);
      else if (middleMs <= toMs) during.push(ms);
    }
    await pair.migrate(b, a, "moving");
  }
  await pair.abort("moving", ...others);
  const slowdown = mean(during) / mean(quiet) - 1;
  printTable(`Steps of the others in the batch of the source, by ${backend}`, [{
    "step before ms": mean(quiet).toFixed(2),
    "step during ms": mean(during).toFixed(2),
    "slower by": `${(100 * slowdown).toFixed(1)}%`,
    "steps during": String(during.length),
    "copied for ms": (copiedMs / disturbances).toFixed(0),
    "over 1 s with one migration": `${(slowdown * copiedMs / disturbances / 10).toFixed(2)}%`,
  }]);
}

function intervals(times: readonly number[]): number[] {
  return times.slice(1).map((ms, i) => ms - times[i]);
}

/** Intervals with the moment in their middle. */
function steps(times: readonly number[]): { ms: number; middleMs: number }[] {
  return intervals(times).map((ms, i) => ({ ms, middleMs: times[i] + ms / 2 }));
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
}

if (import.meta.main) {
  const names = backends.filter((name) => Deno.args.length === 0 || Deno.args.includes(name));
  await benchMigration(names);
}
