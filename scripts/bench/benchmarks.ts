/** All benchmarks of `deno task bench`. Durations are those of two cores. */
import { benchBus } from "./bus.ts";
import { benchCluster } from "./cluster.ts";
import { benchEngine } from "./engine.ts";
import { benchFailure } from "./failure.ts";
import { benchManager } from "./manager.ts";
import { benchMemory } from "./memory.ts";
import { benchMigration } from "./migration.ts";
import { benchServer } from "./server.ts";
import { benchStartup } from "./startup.ts";

export interface Benchmark {
  /** What it measures, in a line. */
  readonly about: string;
  /** About how long it takes. */
  readonly minutes: number;
  /** It runs only when it is named. */
  readonly isLong?: true;
  readonly run: () => Promise<void>;
}

/** By name, in the order in which they run. */
export const benchmarks: Readonly<Record<string, Benchmark>> = {
  startup: {
    about: "from the command to the first token, and memory when idle",
    minutes: 0.2,
    run: benchStartup,
  },
  server: {
    about: "tokens and requests per second through HTTP, with nothing to compute",
    minutes: 0.2,
    run: benchServer,
  },
  manager: {
    about: "the manager's share of a core with 256 instances",
    minutes: 0.2,
    run: benchManager,
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
 * Those that are to run.
 * @param names none: all that are not long
 * @throws {RangeError} there is no such benchmark
 */
export function chosenBenchmarks(names: readonly string[]): [name: string, Benchmark][] {
  for (const name of names) {
    if (name in benchmarks) continue;
    const known = Object.keys(benchmarks).join(", ");
    throw new RangeError(`no benchmark "${name}"; there are: ${known}`);
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
    "Measures; by default all but those with a star, which run when they are named.",
    "",
    ...lines,
  ].join("\n");
}

export function describeMinutes(minutes: number): string {
  return minutes < 1 ? `${Math.round(minutes * 60)} s` : `${minutes} min`;
}
