/** Command line of the fuzzer. */
import { type ArgumentTable, flag, integer, text } from "../src/cli/arguments/argument.ts";
import { ArgumentIndex } from "../src/cli/arguments/index.ts";
import { readCommandLine } from "../src/cli/command_line.ts";
import { commandHelp, terminalWidth } from "../src/cli/help.ts";
import { UsageError } from "../src/core/errors.ts";

const table = {
  "seeds": text({
    default: null,
    metavar: "A..B",
    help: "First and last seed to run, or a single seed. Required.",
  }),
  "trace": flag({
    help: "Show every event of each seed that fails, or of the first if none fails.",
  }),
  "leadership": flag({
    help:
      "Run scenarios of managers that elect a leader, of their lease store and of the receivers of " +
      "their decisions, in place of scenarios of whole clusters.",
  }),
  "hosts": flag({
    help:
      "Run scenarios of hosts with agents that start instances for managers which come and go, in place " +
      "of scenarios of whole clusters.",
  }),
  "jobs": integer({
    default: 1,
    min: 1,
    help: "Number of threads, each of which runs one seed at a time.",
  }),
  "max-failures": integer({ default: 10, min: 1, help: "Stop after this many failed seeds." }),
} satisfies ArgumentTable;

const index = new ArgumentIndex([{ title: "Options", section: "SERVER", table }]);

/** Larger seeds would collide with the streams that other seeds use (`random_scenario.ts`). */
const MAX_SEED = 2 ** 40 - 1;

/** Seeds from `first` to `last`, both included. */
export interface Seeds {
  readonly first: number;
  readonly last: number;
}

/** What the scenarios are about. */
export type FuzzKind = "clusters" | "leadership" | "hosts";

export interface FuzzOptions {
  readonly seeds: Seeds;
  readonly trace: boolean;
  readonly kind: FuzzKind;
  readonly jobs: number;
  readonly maxFailures: number;
}

export function fuzzHelp(): string {
  const summary = "Runs random scenarios of simulated clusters, one for each seed.";
  return commandHelp("deno task fuzz", summary, index, terminalWidth());
}

/** @throws {UsageError} an argument is unknown, missing or out of range */
export function readFuzzOptions(argv: readonly string[]): FuzzOptions {
  const given = readCommandLine(argv, index);
  const valueOf = (name: keyof typeof table) => given.get(name) ?? table[name].default;
  if (valueOf("leadership") && valueOf("hosts")) {
    throw new UsageError("--leadership and --hosts are two kinds of scenarios: give one of them");
  }
  return {
    seeds: parseSeeds(valueOf("seeds") as string | null),
    trace: valueOf("trace") as boolean,
    kind: valueOf("leadership") ? "leadership" : valueOf("hosts") ? "hosts" : "clusters",
    jobs: valueOf("jobs") as number,
    maxFailures: valueOf("max-failures") as number,
  };
}

function parseSeeds(written: string | null): Seeds {
  const expected = "expected the first and last seed, for example --seeds 1..1000";
  if (written === null) throw new UsageError(`--seeds is missing: ${expected}`);
  const match = /^(\d+)(?:\.\.(\d+))?$/.exec(written);
  if (!match) throw new UsageError(`--seeds ${written}: ${expected}`);
  const first = Number(match[1]), last = Number(match[2] ?? match[1]);
  if (last > MAX_SEED) throw new UsageError(`--seeds ${written}: seeds are at most ${MAX_SEED}`);
  if (last < first) throw new UsageError(`--seeds ${written}: the last seed is before the first`);
  return { first, last };
}
