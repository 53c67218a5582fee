/**
 * Live migration between two real instance processes with the CPU executor, one thread each: random
 * weights of a 135M shape in bfloat16. Measures downtime by length, the slowdown of the rest of the batch
 * during a migration, and bytes per second against the ceiling of the backend's path in the
 * same run: a plain TCP copy, or a copy in memory.
 */
import { realClock, sleep } from "../../src/core/clock.ts";
import type { MigrationBackendOptions } from "../../src/core/options.ts";
import { type BenchInstance, InstancePair } from "./instance_pair.ts";
import { model135M } from "./models.ts";
import { memoryCopy } from "./memory_copy.ts";
import { plainCopy } from "./plain_copy.ts";
import { median, percentile, printTable } from "./table.ts";

const allLengths = [256, 1024, 4096];
/** Tokens of the requests whose copying is measured. */
const copiedTokens = 4096;
const movesPerLength = 14;
const batch = 8;
const batchTokens = 256;
/** Migrations at each speed during which the steps of the other requests are timed. */
const disturbanceRounds = 2, movesPerRound = 6;
/** Steps before and after a migration; the steps during it are compared with them. */
const aloneMs = 300;
const copyBytes = 1 << 30;

const config = { ...model135M, max_position_embeddings: 20_000 };

type BackendName = MigrationBackendOptions["migrationBackend"];

function argvFor(model: string, backend: BackendName): string[] {
  return [
    `--model=${model}`,
    "--load-format=dummy",
    "--device=cpu",
    "--cpu-threads=1",
    "--swap-space=0",
    "--max-model-len=20000",
    "--num-gpu-blocks-override=2000",
    "--enable-migration",
    `--migration-backend=${backend}`,
    `--migration-backend-kvtransfer-naming-url=file:${model}/naming`,
    "--max-stages=20",
  ];
}

const backends = ["gloo", "kvtransfer", "rayrpc", "grpc"] as const;

/** The fastest that a backend's path can be, in GB/s. */
interface Ceiling {
  readonly name: string;
  measure(bytes: number): Promise<number>;
}

const tcp: Ceiling = { name: "plain TCP copy", measure: plainCopy };
const memory: Ceiling = { name: "memcpy", measure: memoryCopy };
const ceilings: Readonly<Partial<Record<BackendName, Ceiling>>> = { kvtransfer: memory };

const parts = ["downtime", "speed", "disturbance"] as const;

/** The parts to measure; default: all. */
export interface MigrationBenchOptions {
  readonly backends?: readonly BackendName[];
  readonly parts?: readonly (typeof parts[number])[];
  /** Tokens of the requests whose downtime is measured. */
  readonly lengths?: readonly number[];
}

/** Runs the benchmark. */
export async function benchMigration(chosen: MigrationBenchOptions = {}): Promise<void> {
  const has = (part: typeof parts[number]) => (chosen.parts ?? parts).includes(part);
  const model = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${model}/config.json`, JSON.stringify(config));
    for (const backend of chosen.backends ?? backends) {
      await using pair = await InstancePair.start(argvFor(model, backend));
      await sleep(realClock, 500); // the group is formed
      if (has("downtime")) await benchDowntime(pair, backend, chosen.lengths ?? allLengths);
      if (has("speed")) await benchSpeed(pair, backend);
      if (has("disturbance")) {
        await benchDisturbance(pair, backend, pair.instances.slice(0, 1));
        await benchDisturbance(pair, backend, pair.instances);
      }
    }
  } finally {
    await Deno.remove(model, { recursive: true });
  }
}

async function beginBatch(pair: InstancePair, instance: BenchInstance): Promise<string[]> {
  const { instanceId } = instance.registration;
  const ids = Array.from({ length: batch }, (_, i) => `${instanceId}-${i}`);
  for (const id of ids) await pair.begin(instance, id, batchTokens);
  return ids;
}

async function benchDowntime(
  pair: InstancePair,
  backend: BackendName,
  lengths: readonly number[],
): Promise<void> {
  const [a, b] = pair.instances;
  const startedMs = performance.now();
  await pair.begin(a, "whole", lengths.at(-1)!);
  const recomputeMs = performance.now() - startedMs;
  await pair.abort("whole");
  const others = await beginBatch(pair, a);
  a.stepMs.length = 0;
  await sleep(realClock, 1_500);
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
      await sleep(realClock, 100);
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
  const ceiling = ceilings[backend] ?? tcp;
  await pair.begin(a, "moving", copiedTokens);
  const speeds: number[] = [], copies: number[] = [];
  for (let i = 0; i < movesPerLength; i++) {
    const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
    const { transfer: { bytes, transferMs } } = await pair.migrate(from, to, "moving", true);
    speeds.push(bytes / transferMs / 1e6);
    if (i % 2 === 0) copies.push(await ceiling.measure(copyBytes));
  }
  await pair.abort("moving");
  printTable(`Blocks of ${copiedTokens} tokens by ${backend}, median`, [{
    "GB/s": median(speeds).toFixed(2),
    [`${ceiling.name} GB/s`]: median(copies).toFixed(2),
    "ratio": `${(100 * median(speeds) / median(copies)).toFixed(0)}%`,
  }]);
}

/** Steps of an instance around one migration. */
interface Disturbance {
  readonly aloneMs: number[];
  /** Extra duration of the steps during the copying, divided by the time of copying. */
  readonly slowdown: number;
}

/**
 * Compares steps while a request is copied with steps just before and after, alternately at full speed
 * and in the background. Every round starts new batches, because steps take longer as batches grow.
 * @param loaded instances with a batch; the request leaves the first instance
 */
async function benchDisturbance(
  pair: InstancePair,
  backend: BackendName,
  loaded: readonly BenchInstance[],
): Promise<void> {
  const speeds = { "at full speed": true, "in the background": false };
  const rows = [];
  const found = Object.keys(speeds).map(() => ({
    copiedMs: [] as number[],
    disturbances: loaded.map((): Disturbance[] => []),
  }));
  await pair.begin(pair.instances[0], "moving", copiedTokens);
  for (let round = 0; round < disturbanceRounds; round++) {
    const others = [];
    for (const instance of loaded) others.push(...await beginBatch(pair, instance));
    for (let i = 0; i < movesPerRound; i++) {
      for (const [k, isUrgent] of Object.values(speeds).entries()) {
        const { copiedMs, disturbances } = await disturb(pair, loaded, isUrgent);
        found[k].copiedMs.push(copiedMs);
        disturbances.forEach((one, at) => found[k].disturbances[at].push(one));
      }
    }
    await pair.abort(...others);
  }
  await pair.abort("moving");
  for (const [k, speed] of Object.keys(speeds).entries()) {
    const copiedMs = median(found[k].copiedMs);
    for (const [at, list] of found[k].disturbances.entries()) {
      const slower = list.map(({ slowdown }) => slowdown);
      rows.push({
        "copied": speed,
        "steps of": at === 0 ? "source" : "destination",
        "alone ms": mean(list.flatMap(({ aloneMs }) => aloneMs)).toFixed(2),
        "slower by": asPercent(median(slower)),
        "quartiles": `${asPercent(percentile(slower, 25))} to ${asPercent(percentile(slower, 75))}`,
        "migrations": String(slower.length),
        "copied for ms": copiedMs.toFixed(0),
        "over 1 s with one migration": asPercent(median(slower) * Math.min(1, copiedMs / 1000)),
      });
    }
  }
  printTable(
    `Steps of the others while ${copiedTokens} tokens are copied by ${backend}, batch of ${batch} ` +
      (loaded.length > 1 ? "in both instances" : "in the source"),
    rows,
  );
}

/** Moves a request from the first instance to the second, and back. */
async function disturb(pair: InstancePair, loaded: readonly BenchInstance[], isUrgent: boolean) {
  const [a, b] = pair.instances;
  for (const { stepMs } of loaded) stepMs.length = 0;
  await sleep(realClock, aloneMs);
  const fromMs = performance.now();
  const { totalMs, downtimeMs } = await pair.migrate(a, b, "moving", isUrgent);
  const copiedMs = totalMs - downtimeMs;
  await pair.migrate(b, a, "moving", true);
  const backMs = performance.now();
  await sleep(realClock, aloneMs);
  const disturbances = loaded.map(({ stepMs }): Disturbance => {
    const all = steps(stepMs);
    // A copy at full speed may fall within two steps, which then bear its whole cost.
    const during = all.filter((step) => step.toMs > fromMs && step.fromMs < fromMs + copiedMs);
    const alone = all.filter((step) => step.toMs < fromMs || step.fromMs > backMs);
    const aloneMs = alone.map(durationMs);
    const addedMs = during.length * (mean(during.map(durationMs)) - mean(aloneMs));
    return { aloneMs, slowdown: addedMs / copiedMs };
  });
  return { copiedMs, disturbances };
}

function intervals(times: readonly number[]): number[] {
  return times.slice(1).map((ms, i) => ms - times[i]);
}

interface Step {
  readonly fromMs: number;
  readonly toMs: number;
}

/** @param times when the outputs of each step came */
function steps(times: readonly number[]): Step[] {
  return times.slice(1).map((toMs, i) => ({ fromMs: times[i], toMs }));
}

function durationMs({ fromMs, toMs }: Step): number {
  return toMs - fromMs;
}

function asPercent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
}

if (import.meta.main) {
  const named = <T extends string>(all: readonly T[]) => {
    const found = all.filter((name) => Deno.args.includes(name));
    return found.length > 0 ? found : undefined;
  };
  const lengths = Deno.args.map(Number).filter((tokens) => tokens > 0);
  await benchMigration({
    backends: named(backends),
    parts: named(parts),
    lengths: lengths.length > 0 ? lengths : undefined,
  });
}
