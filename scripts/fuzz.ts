/**
 * Runs random scenarios of simulated clusters, one for each seed, and shows the seeds that fail.
 *
 *   deno run -A scripts/fuzz.ts --seeds A..B [--leadership | --hosts] [--trace] [--jobs N] [--max-failures N]
 *
 * The same seed gives the same run. Exit code 1 when a seed fails, 2 for a wrong command line.
 */
import {
  fuzzHelp,
  type FuzzKind,
  type FuzzOptions,
  readFuzzOptions,
  type Seeds,
} from "./fuzz_options.ts";
import { wantsHelp } from "../src/cli/main.ts";
import { UsageError } from "../src/core/errors.ts";
import { runHostsScenario } from "../src/sim/hosts/run.ts";
import { randomHostsScenario } from "../src/sim/hosts/scenario.ts";
import { randomLeadershipScenario } from "../src/sim/leadership/scenario.ts";
import { runLeadershipScenario } from "../src/sim/leadership/run.ts";
import { randomScenario } from "../src/sim/fuzz/random_scenario.ts";
import { runScenario } from "../src/sim/fuzz/run_scenario.ts";

/** Frames of an error's stack. Capturing more takes time; traces of failed seeds have full stacks. */
const STACK_FRAMES = { fast: 0, traced: 10 };
/** Seeds that a worker gets at a time. */
const CHUNK_SEEDS = 50;
const PROGRESS_INTERVAL_MS = 1_000;

interface Failure {
  readonly seed: number;
  readonly violations: readonly string[];
}

/** Counters of a run, by name. */
type Statistics = Readonly<Record<string, number>>;

interface ChunkResult {
  readonly failures: readonly Failure[];
  readonly statistics: Statistics[];
}

/** Work of a thread. */
interface Chunk extends Seeds {
  readonly kind: FuzzKind;
}

interface SeedRun {
  readonly violations: readonly string[];
  readonly statistics: Statistics;
  readonly trace: string;
  /** The scenario, one line for each of its parts. */
  readonly description: string;
}

async function runSeed(seed: number, kind: FuzzKind, isTraced: boolean): Promise<SeedRun> {
  if (kind === "hosts") {
    const { requests, actions, ...settings } = randomHostsScenario(seed);
    const run = await runHostsScenario({ requests, actions, ...settings }, { isTraced });
    const { violations, trace, ...statistics } = run;
    const parts = { ...settings, requests: requests.length };
    return { violations, statistics, trace, description: describe(parts, actions) };
  }
  if (kind === "clusters") {
    const { requests, actions, ...settings } = randomScenario(seed);
    const run = await runScenario({ requests, actions, ...settings }, { isTraced });
    const { violations, trace } = run;
    const parts = { ...settings, requests: requests.length };
    return {
      violations,
      statistics: { ...run.statistics },
      trace,
      description: describe(parts, actions),
    };
  }
  const scenario = randomLeadershipScenario(seed);
  const { violations, trace, numLeaderships } = await runLeadershipScenario(scenario, { isTraced });
  const { actions, ...settings } = scenario;
  const statistics = { leaderships: numLeaderships };
  return { violations, statistics, trace, description: describe(settings, actions) };
}

if (self.name === "fuzz-worker") serveChunks();
else if (import.meta.main) Deno.exit(await main());

/** Body of a worker: runs the chunks of seeds that it receives. */
function serveChunks(): void {
  const scope = self as unknown as Worker;
  scope.onmessage = async ({ data }) => scope.postMessage(await runChunk(data));
}

async function runChunk({ first, last, kind }: Chunk): Promise<ChunkResult> {
  const failures: Failure[] = [];
  const statistics: Statistics[] = [];
  Error.stackTraceLimit = STACK_FRAMES.fast;
  for (let seed = first; seed <= last; seed++) {
    const result = await runSeed(seed, kind, false);
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

async function fuzz(options: FuzzOptions): Promise<number> {
  const { seeds, kind, trace } = options;
  const failures = await runAll(options);
  const showOne = (failure: Failure, isTraced: boolean) => show(failure, kind, isTraced);
  for (const failure of failures) await showOne(failure, trace || failure === failures[0]);
  if (trace && failures.length === 0) await showOne({ seed: seeds.first, violations: [] }, true);
  return failures.length === 0 ? 0 : 1;
}

/** Runs all seeds, or until enough have failed. */
async function runAll({ seeds: { first, last }, kind, jobs, maxFailures }: FuzzOptions) {
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
  const work = async (run: (chunk: Chunk) => Promise<ChunkResult>) => {
    while (next <= last && failures.length < maxFailures) {
      const chunk = { first: next, last: Math.min(last, next + CHUNK_SEEDS - 1), kind };
      next = chunk.last + 1;
      take(await run(chunk));
    }
  };
  await (jobs === 1 ? work(runChunk) : workInParallel(jobs, work));
  const seconds = (performance.now() - startMs) / 1000;
  const ran = `${numDone} ${numDone === 1 ? "seed" : "seeds"} in ${seconds.toFixed(1)} s`;
  console.log(`${ran}, ${failures.length} failed`);
  const { finished, failed, aborted, ...others } = sums;
  const requests = kind !== "clusters" ? undefined : { finished, failed, aborted };
  console.log(JSON.stringify({ requests, ...others }));
  return failures.sort((a, b) => a.seed - b.seed);
}

async function workInParallel(
  jobs: number,
  work: (run: (chunk: Chunk) => Promise<ChunkResult>) => Promise<void>,
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

async function show(
  { seed, violations }: Failure,
  kind: FuzzKind,
  isTraced: boolean,
): Promise<void> {
  console.log(`\nseed ${seed}${violations.length > 0 ? " FAILED" : ""}`);
  for (const violation of violations) console.log(`  ${violation}`);
  if (!isTraced) return;
  Error.stackTraceLimit = STACK_FRAMES.traced;
  const { description, trace } = await runSeed(seed, kind, true);
  console.log(description);
  console.log(trace);
}

function describe(settings: object, actions: readonly unknown[]): string {
  const lines = Object.entries(settings).map(([name, value]) =>
    `${name}: ${JSON.stringify(value)}`
  );
  for (const action of actions) lines.push(`action: ${JSON.stringify(action)}`);
  return lines.map((line) => `  ${line}`).join("\n");
}
