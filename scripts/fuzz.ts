/**
 * Runs random scenarios of simulated clusters, one for each seed, and shows the seeds that fail.
 *
 *   deno run -A scripts/fuzz.ts --seeds A..B [--trace] [--jobs N] [--max-failures N]
 *
 * The same seed gives the same run. Exit code 1 when a seed fails, 2 for a wrong command line.
 */
import { fuzzHelp, type FuzzOptions, readFuzzOptions, type Seeds } from "./fuzz_options.ts";
import { wantsHelp } from "../src/cli/main.ts";
import { UsageError } from "../src/core/errors.ts";
import { randomScenario } from "../src/sim/fuzz/random_scenario.ts";
import { runScenario, type RunStatistics } from "../src/sim/fuzz/run_scenario.ts";
import type { Scenario } from "../src/sim/fuzz/scenario.ts";

/** Frames of an error's stack. Capturing more takes time; traces of failed seeds have full stacks. */
const STACK_FRAMES = { fast: 0, traced: 10 };
/** Seeds that a worker gets at a time. */
const CHUNK_SEEDS = 50;
const PROGRESS_INTERVAL_MS = 1_000;

interface Failure {
  readonly seed: number;
  readonly violations: readonly string[];
}

interface ChunkResult {
  readonly failures: readonly Failure[];
  readonly statistics: RunStatistics[];
}

if (self.name === "fuzz-worker") serveChunks();
else if (import.meta.main) Deno.exit(await main());

/** Body of a worker: runs the chunks of seeds that it receives. */
function serveChunks(): void {
  const scope = self as unknown as Worker;
  scope.onmessage = async ({ data }) => scope.postMessage(await runChunk(data));
}

async function runChunk({ first, last }: Seeds): Promise<ChunkResult> {
  const failures: Failure[] = [];
  const statistics: RunStatistics[] = [];
  Error.stackTraceLimit = STACK_FRAMES.fast;
  for (let seed = first; seed <= last; seed++) {
    const result = await runScenario(randomScenario(seed));
    if (result.violations.length > 0) failures.push({ seed, violations: result.violations });
    statistics.push(result.statistics);
  }
  return { failures, statistics };
}

async function main(): Promise<number> {
  if (wantsHelp(Deno.args)) {
    console.log(fuzzHelp());
    return 0;
  }
  try {
    return await fuzz(readFuzzOptions(Deno.args));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`fuzz: ${error.message}\nTry --help.`);
    return 2;
  }
}

async function fuzz({ seeds, jobs, maxFailures, trace }: FuzzOptions): Promise<number> {
  const failures = await runAll(seeds, jobs, maxFailures);
  for (const failure of failures) await show(failure, trace || failure === failures[0]);
  if (trace && failures.length === 0) await show({ seed: seeds.first, violations: [] }, true);
  return failures.length === 0 ? 0 : 1;
}

/** Runs all seeds, or until enough have failed. */
async function runAll({ first, last }: Seeds, jobs: number, maxFailures: number) {
  const startMs = performance.now();
  const failures: Failure[] = [];
  const sums: Record<string, number> = {};
  let next = first, numDone = 0, shownMs = startMs;
  const take = ({ failures: found, statistics }: ChunkResult) => {
    failures.push(...found);
    for (const { seed, violations } of found) console.error(`seed ${seed}: ${violations[0]}`);
    numDone += statistics.length;
    for (const run of statistics) {
      for (const [name, value] of Object.entries(run)) sums[name] = (sums[name] ?? 0) + value;
    }
    if (performance.now() - shownMs < PROGRESS_INTERVAL_MS) return;
    shownMs = performance.now();
    const rate = numDone / (shownMs - startMs) * 1000;
    console.error(
      `${numDone} of ${last - first + 1} seeds, ${rate.toFixed()}/s, ` +
        `${failures.length} failed`,
    );
  };
  const work = async (run: (seeds: Seeds) => Promise<ChunkResult>) => {
    while (next <= last && failures.length < maxFailures) {
      const chunk = { first: next, last: Math.min(last, next + CHUNK_SEEDS - 1) };
      next = chunk.last + 1;
      take(await run(chunk));
    }
  };
  await (jobs === 1 ? work(runChunk) : workInParallel(jobs, work));
  const seconds = (performance.now() - startMs) / 1000;
  const ran = `${numDone} ${numDone === 1 ? "seed" : "seeds"} in ${seconds.toFixed(1)} s`;
  console.log(`${ran}, ${failures.length} failed`);
  const { finished, failed, aborted, ...others } = sums;
  console.log(JSON.stringify({ requests: { finished, failed, aborted }, ...others }));
  return failures.sort((a, b) => a.seed - b.seed);
}

async function workInParallel(
  jobs: number,
  work: (run: (seeds: Seeds) => Promise<ChunkResult>) => Promise<void>,
): Promise<void> {
  await Promise.all(Array.from({ length: jobs }, async () => {
    const worker = new Worker(import.meta.url, { type: "module", name: "fuzz-worker" });
    await work((seeds) =>
      new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => {
          event.preventDefault();
          reject(new Error(`seeds ${seeds.first}..${seeds.last}: ${event.message}`));
        };
        worker.postMessage(seeds);
      })
    );
    worker.terminate();
  }));
}

async function show({ seed, violations }: Failure, isTraced: boolean): Promise<void> {
  console.log(`\nseed ${seed}${violations.length > 0 ? " FAILED" : ""}`);
  for (const violation of violations) console.log(`  ${violation}`);
  if (!isTraced) return;
  Error.stackTraceLimit = STACK_FRAMES.traced;
  const scenario = randomScenario(seed);
  console.log(describe(scenario));
  console.log((await runScenario(scenario, { isTraced: true })).trace);
}

function describe({ requests, actions, ...settings }: Scenario): string {
  const lines = Object.entries(settings).map(([name, value]) =>
    `${name}: ${JSON.stringify(value)}`
  );
  lines.push(`requests: ${requests.length}`);
  for (const action of actions) lines.push(`action: ${JSON.stringify(action)}`);
  return lines.map((line) => `  ${line}`).join("\n");
}
