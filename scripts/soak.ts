/**
 * Runs a service for a while under bursts, long and short prompts, clients that leave, bad requests and
 * requests that move, and kills an instance now and then. Every stream has to be that of a quiet run, no
 * request may be lost, and memory and open files of each process have to stay level.
 *
 *   deno run -A scripts/soak.ts [MINUTES] [SEED]
 *
 * Runs the built executable (`deno task build`). Default: 20 minutes, seed 1. A run of at least 20 minutes
 * writes its outcome to `test/soak.md`. Exit code 1 if one of the three does not hold.
 */
import type { InstanceRegistration } from "../src/core/protocol/membership.ts";
import { Random } from "../src/core/random.ts";
import { quietStreams } from "../test/e2e/chaos.ts";
import {
  type Cluster,
  restless,
  servingInstances,
  startCluster,
  waitUntilEmpty,
  waitUntilReady,
} from "../test/e2e/cluster.ts";
import { signalIfThere } from "../test/e2e/harness.ts";
import { collectAll } from "./bench/service.ts";
import { describeCommit, writeReport } from "./report_file.ts";
import { type Footprint, footprintOf } from "./soak/footprints.ts";
import { Load, pooledRequests } from "./soak/load.ts";
import { type SoakOutcome, summaryOf, verdictOf } from "./soak/summary.ts";

const NUM_INSTANCES = 3;
const SAMPLE_MS = 10_000;
/** Mean time between two kills. */
const KILL_MS = 45_000;
/** Runs that are shorter tell too little of leaks to be written down. */
const WRITTEN_MINUTES = 20;
const file = new URL("../test/soak.md", import.meta.url);

/** Looks at every process of a cluster, and kills instances of it. */
class Watch {
  /** By the name of the process. */
  readonly series = new Map<string, Footprint[]>();
  kills = 0;
  readonly #names = new Map<number, string>();
  readonly #startMs = performance.now();
  readonly #random: Random;

  constructor(private readonly cluster: Cluster, seed: number) {
    this.#random = new Random(seed);
  }

  get minutes(): number {
    return (performance.now() - this.#startMs) / 60_000;
  }

  /** Memory and open files of each process at the last look. */
  get last(): string {
    return [...this.#names.values()].flatMap((name) => {
      const one = this.series.get(name)?.at(-1);
      return one
        ? [`${name} ${Math.round(one.residentBytes / 2 ** 20)} MiB, ${one.openFiles}`]
        : [];
    }).join("; ");
  }

  /** Samples and kills for so long. */
  async run(minutes: number): Promise<void> {
    let nextKillMs = this.#startMs + KILL_MS;
    while (this.minutes < minutes) {
      await sleep(SAMPLE_MS);
      await this.#nameProcesses();
      this.#sample();
      if (performance.now() < nextKillMs || minutes - this.minutes < 1) continue;
      await this.#kill();
      nextKillMs = performance.now() + this.#random.exponential() * KILL_MS;
    }
  }

  async #nameProcesses(): Promise<void> {
    this.#names.set(this.cluster.program.pid, "API server and manager");
    for (const { pid, instanceId } of await this.#instances()) this.#names.set(pid, instanceId);
  }

  #sample(): void {
    for (const [pid, name] of this.#names) {
      const footprint = footprintOf(pid, this.minutes);
      if (footprint === null) {
        this.#names.delete(pid);
        continue;
      }
      if (!this.series.has(name)) this.series.set(name, []);
      this.series.get(name)!.push(footprint);
    }
  }

  /** Never the oldest instance, so that one of them lives through it all. */
  async #kill(): Promise<void> {
    const oldest = [...this.#names].find(([pid]) => pid !== this.cluster.program.pid)?.[0];
    const others = (await this.#instances()).filter(({ pid }) => pid !== oldest);
    if (others.length < 2) return;
    signalIfThere(others[this.#random.below(others.length)].pid, "SIGKILL");
    this.kills++;
  }

  /** Those that serve; none where a busy machine has no answer in time. */
  async #instances(): Promise<readonly InstanceRegistration[]> {
    return await servingInstances(this.cluster).catch(() => []);
  }
}

/** Sum of a metric's samples whose labels match. */
async function metric({ url }: Cluster, pattern: RegExp): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => pattern.test(line));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function soak(minutes: number, seed: number): Promise<SoakOutcome> {
  const quiet = await quietStreams(pooledRequests);
  await using cluster = await startCluster(NUM_INSTANCES, [
    ...restless,
    ...["--polling-interval", "0.05", "--migration-backend", "gloo", "--instance-timeout", "20"],
  ], { env: collectAll });
  const load = new Load(cluster.url, quiet, seed);
  const watch = new Watch(cluster, seed);
  const running = load.run();
  const progress = setInterval(() => {
    console.log(
      `${watch.minutes.toFixed(1)} min: ${watch.kills} kills; ${watch.last}`,
      load.counts,
    );
  }, 60_000);
  await watch.run(minutes).finally(() => load.stop());
  clearInterval(progress);
  await running;
  const migrations = await metric(cluster, /^llumnix:migrations_total\{.*outcome="committed"/);
  await waitUntilReady(cluster);
  await waitUntilEmpty(cluster, NUM_INSTANCES);
  const { counts, reasons } = load;
  const { kills, series } = watch;
  return {
    commit: await describeCommit(),
    minutes,
    seed,
    counts,
    reasons,
    kills,
    migrations,
    series,
  };
}

const [minutes, seed] = [Number(Deno.args[0] ?? 20), Number(Deno.args[1] ?? 1)];
if (!(minutes >= 1) || !Number.isSafeInteger(seed) || Deno.args.length > 2) {
  console.error(`${Deno.args.join(" ")}: expected a number of minutes from 1 on, and a seed`);
  Deno.exit(2);
}
const outcome = await soak(minutes, seed);
const summary = summaryOf(outcome);
console.log(summary);
for (const reason of outcome.reasons) console.log(reason);
if (minutes >= WRITTEN_MINUTES) await writeReport(file, summary);
if (verdictOf(outcome) !== null) Deno.exit(1);
