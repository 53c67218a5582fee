import { type Spread, spreadOf } from "../../bench/spread.ts";
import type { Latencies } from "./request_recorder.ts";
import type { RunResult } from "./run_result.ts";

/** A figure of a run, for tables. */
export interface Metric {
  readonly name: string;
  readonly unit: string;
  /** Whether a smaller value is better; null where neither is. */
  readonly isLowerBetter: boolean | null;
  /** Null where the run has no such figure. */
  readonly valueOf: (run: RunResult) => number | null;
}

const SECOND = 1000;

function latency(
  name: string,
  unit: "s" | "ms",
  valueOf: (latencies: Latencies) => number,
  of: (run: RunResult) => Latencies | null = ({ all }) => all,
): Metric {
  return {
    name,
    unit,
    isLowerBetter: true,
    valueOf: (run) => {
      const latencies = of(run);
      return latencies && valueOf(latencies) / (unit === "s" ? SECOND : 1);
    },
  };
}

function latenciesOf(prefix: string, of: (run: RunResult) => Latencies | null): Metric[] {
  return [
    latency(`${prefix}TTFT mean`, "s", ({ ttftMs }) => ttftMs.mean, of),
    latency(`${prefix}TTFT P50`, "s", ({ ttftMs }) => ttftMs.p50, of),
    latency(`${prefix}TTFT P99`, "s", ({ ttftMs }) => ttftMs.p99, of),
    latency(`${prefix}TPOT mean`, "ms", ({ tpotMs }) => tpotMs.mean, of),
    latency(`${prefix}TPOT P50`, "ms", ({ tpotMs }) => tpotMs.p50, of),
    latency(`${prefix}TPOT P99`, "ms", ({ tpotMs }) => tpotMs.p99, of),
    latency(`${prefix}end-to-end mean`, "s", ({ e2eMs }) => e2eMs.mean, of),
    latency(`${prefix}end-to-end P50`, "s", ({ e2eMs }) => e2eMs.p50, of),
    latency(`${prefix}end-to-end P99`, "s", ({ e2eMs }) => e2eMs.p99, of),
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

/** In the order of tables. */
export const metrics: readonly Metric[] = [
  ...latenciesOf("", ({ all }) => all),
  plain("ITL mean", "ms", true, ({ itlMs }) => itlMs.mean),
  plain("ITL P50", "ms", true, ({ itlMs }) => itlMs.p50),
  plain("ITL P99", "ms", true, ({ itlMs }) => itlMs.p99),
  ...latenciesOf("high: ", ({ high }) => high),
  ...latenciesOf("normal: ", ({ normal }) => normal),
  latency("preemption loss mean", "ms", ({ preemptionLossMs }) => preemptionLossMs.mean),
  latency("preemption loss P99", "ms", ({ preemptionLossMs }) => preemptionLossMs.p99),
  plain("preemptions", "", true, ({ preemptions }) => preemptions),
  plain("migrations", "", null, ({ migrations }) => migrations.committed),
  plain("migrations dropped", "", null, ({ migrations }) => migrations.aborted),
  plain(
    "downtime mean",
    "ms",
    true,
    ({ migrations }) => migrations.downtimeMs.count > 0 ? migrations.downtimeMs.mean : null,
  ),
  plain(
    "downtime P99",
    "ms",
    true,
    ({ migrations }) => migrations.downtimeMs.count > 0 ? migrations.downtimeMs.p99 : null,
  ),
  plain("utilisation", "%", null, ({ averages }) => 100 * averages.utilisation),
  plain("fragmentation", "%", true, ({ averages }) => 100 * averages.fragmentation),
  plain("instances mean", "", true, ({ averages }) => averages.instances),
  plain("instance-seconds", "", true, ({ instanceSeconds }) => instanceSeconds),
  plain(
    "output tokens per second",
    "",
    false,
    ({ outputTokens, simulatedSeconds }) => outputTokens / simulatedSeconds,
  ),
  plain("failed requests", "", true, ({ failed }) => failed),
];

/** Over the runs of several seeds; null where they have no such figure. */
export function spreadOver(runs: readonly RunResult[], { valueOf }: Metric): Spread | null {
  const values = runs.map(valueOf).filter((value) => value !== null);
  return values.length === 0 ? null : spreadOf(values);
}
