import type { Distribution } from "../../core/stats/distribution.ts";
import { type Spread, spreadOf } from "../../core/stats/spread.ts";
import type { Latencies } from "./request_recorder.ts";
import type { RunResult } from "./run_result.ts";

/** A figure of a run, for tables. */
export interface Metric {
  readonly name: string;
  readonly unit: string;
  /** Whether a smaller value is better; null if no direction is. */
  readonly isLowerBetter: boolean | null;
  /** Null if the run has no such figure. */
  readonly valueOf: (run: RunResult) => number | null;
}

const SECOND = 1000;

const labels = { mean: "mean", p50: "P50", p99: "P99" } as const;

/** Statistics of a distribution of milliseconds; null if it has no values. */
function statistics(
  name: string,
  unit: "s" | "ms",
  of: (run: RunResult) => Distribution | null,
  chosen: readonly (keyof typeof labels)[] = ["mean", "p50", "p99"],
): Metric[] {
  return chosen.map((statistic) => ({
    name: `${name} ${labels[statistic]}`,
    unit,
    isLowerBetter: true,
    valueOf: (run) => {
      const distribution = of(run);
      if (distribution === null || distribution.count === 0) return null;
      return distribution[statistic] / (unit === "s" ? SECOND : 1);
    },
  }));
}

function latenciesOf(prefix: string, of: (run: RunResult) => Latencies | null): Metric[] {
  return [
    ...statistics(`${prefix}TTFT`, "s", (run) => of(run)?.ttftMs ?? null),
    ...statistics(`${prefix}TPOT`, "ms", (run) => of(run)?.tpotMs ?? null),
    ...statistics(`${prefix}end-to-end`, "s", (run) => of(run)?.e2eMs ?? null),
  ];
}

function plain(
  name: string,
  unit: string,
  isLowerBetter: boolean | null,
  valueOf: (run: RunResult) => number | null,
): Metric {
  return { name, unit, isLowerBetter, valueOf };
}

/** All metrics, in the order of tables. */
export const metrics: readonly Metric[] = [
  ...latenciesOf("", ({ all }) => all),
  ...statistics("ITL", "ms", ({ itlMs }) => itlMs),
  ...latenciesOf("high: ", ({ high }) => high),
  ...latenciesOf("normal: ", ({ normal }) => normal),
  ...statistics("preemption loss", "ms", ({ all }) => all.preemptionLossMs, ["mean", "p99"]),
  plain("preemptions", "", true, ({ preemptions }) => preemptions),
  plain("migrations", "", null, ({ migrations }) => migrations.committed),
  plain("migrations dropped", "", null, ({ migrations }) => migrations.aborted),
  ...statistics("downtime", "ms", ({ migrations }) => migrations.downtimeMs, ["mean", "p99"]),
  plain("utilisation", "%", null, ({ averages }) => averages && 100 * averages.utilisation),
  plain("fragmentation", "%", true, ({ averages }) => averages && 100 * averages.fragmentation),
  plain("instances mean", "", true, ({ averages }) => averages && averages.instances),
  plain("instance-seconds", "", true, ({ instanceSeconds }) => instanceSeconds),
  plain(
    "output tokens per second",
    "",
    false,
    ({ outputTokens, simulatedSeconds }) => outputTokens / simulatedSeconds,
  ),
  plain("failed requests", "", true, ({ failed }) => failed),
];

/** A metric over the runs of several seeds; null if they have no such figure. */
export function spreadOver(runs: readonly RunResult[], { valueOf }: Metric): Spread | null {
  const values = runs.map(valueOf).filter((value) => value !== null);
  return values.length === 0 ? null : spreadOf(values);
}
