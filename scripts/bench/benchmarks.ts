/** All benchmarks of `deno task bench`. Durations are for a machine of two cores. */
import { benchAttacks } from "./attacks.ts";
import { benchBus } from "./bus.ts";
import { benchCluster } from "./cluster.ts";
import { benchEngine } from "./engine.ts";
import { benchFailure } from "./failure.ts";
import { benchLoadGenerator } from "./load.ts";
import { benchManager } from "./manager.ts";
import { benchMemory } from "./memory.ts";
import { benchMetrics } from "./metrics.ts";
import { benchMigration } from "./migration.ts";
import { benchRouter } from "./router.ts";
import { benchServer } from "./server.ts";
import { benchStartup } from "./startup.ts";

export interface Benchmark {
  /** What it measures, in a line. */
  readonly about: string;
  /** About how long it takes. */
  readonly minutes: number;
  /** Whether the benchmark runs only if it is named. */
  readonly isLong?: true;
  readonly run: () => Promise<void>;
}

/** By name, in the order in which they run. */
export const benchmarks: Readonly<Record<string, Benchmark>> = {
  startup: {
    about: "--version beside `deno eval`, from `serve` to its first token, memory when idle",
    minutes: 0.2,
    run: benchStartup,
  },
  server: {
    about: "tokens and requests per second through HTTP, with nothing to compute",
    minutes: 0.2,
    run: benchServer,
  },
  router: {
    about: "CPU of API server and manager per request at 1k, 10k and 100k prompt tokens",
    minutes: 1,
    run: benchRouter,
  },
  attacks: {
    about:
      "requests and readers that are made to hurt, and a prompt of 220,000 tokens: what others notice",
    minutes: 4,
    run: benchAttacks,
  },
  manager: {
    about:
      "the manager's share of a core, and its dispatches' latency, with 256 and 1,024 instances",
    minutes: 1,
    run: benchManager,
  },
  metrics: {
    about: "a scrape of 16 instances, idle and busy; what readers that never pause do to a stream",
    minutes: 2,
    run: benchMetrics,
  },
  load: {
    about: "what llumnix bench measures of a server of known latencies, up to 2,000 streams",
    minutes: 1,
    run: benchLoadGenerator,
  },
  bus: {
    about: "calls and payloads over Unix sockets, TCP and TLS",
    minutes: 0.2,
    run: benchBus,
  },
  engine: {
    about: "prefill and decode of a 135M and a 0.5B shape, native and WebAssembly",
    minutes: 4,
    run: benchEngine,
  },
  migration: {
    about: "requests that move between processes: downtime, bytes/s, what others notice",
    minutes: 3,
    run: () => benchMigration(),
  },
  failure: {
    about: "instances that are killed or hang: detection, and the gap in the streams",
    minutes: 2,
    run: benchFailure,
  },
  cluster: {
    about: "four instances under bursty load: dispatch by load, migration on and off",
    minutes: 5,
    isLong: true,
    run: () => benchCluster(),
  },
  memory: {
    about: "memory of a service after 2,000 and after 20,000 requests",
    minutes: 6,
    isLong: true,
    run: benchMemory,
  },
};

/**
 * The benchmarks to run.
 * @param names empty for all benchmarks that are not long
 * @throws {RangeError} a name is unknown
 */
export function chosenBenchmarks(names: readonly string[]): [name: string, Benchmark][] {
  for (const name of names) {
    if (name in benchmarks) continue;
    const known = Object.keys(benchmarks).join(", ");
    throw new RangeError(`unknown benchmark "${name}": expected one of ${known}`);
  }
  return Object.entries(benchmarks).filter(([name, { isLong }]) =>
    names.length === 0 ? !isLong : names.includes(name)
  );
}

/** What `--help` says. */
export function benchHelp(): string {
  const width = Math.max(...Object.keys(benchmarks).map((name) => name.length));
  const lines = Object.entries(benchmarks).map(([name, { about, minutes, isLong }]) =>
    `  ${name.padEnd(width)}  ${about}; ${describeMinutes(minutes)}${isLong ? " *" : ""}`
  );
  return [
    "usage: deno task bench [NAME...]",
    "",
    "Runs benchmarks. Without names it runs all but those marked *, which run only if named.",
    "",
    ...lines,
  ].join("\n");
}

export function describeMinutes(minutes: number): string {
  return minutes < 1 ? `${Math.round(minutes * 60)} s` : `${minutes} min`;
}
