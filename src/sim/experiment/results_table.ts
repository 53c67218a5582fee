import { formatNumber, formatSpread, type Spread, spreadOf } from "../../core/stats/spread.ts";
import type { Comparison } from "./comparison.ts";
import { type Metric, metrics, spreadOver } from "./metrics.ts";
import type { RunResult } from "./run_result.ts";

/** One workload's figures: a row per metric, a column per cluster and per comparison. */
export interface ResultsTable {
  readonly workload: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /**
   * For each row, how the first cluster compares with each of the others, the mean of the factors;
   * null: there is no factor.
   */
  readonly factors: readonly (readonly (number | null)[])[];
}

/** A table for each workload. Figures that no run has are left out. */
export function resultsTables(comparison: Comparison, runs: readonly RunResult[]): ResultsTable[] {
  const names = comparison.clusters.map(({ name }) => name);
  const [first, ...others] = names;
  return comparison.workloads.map(({ name: workload }) => {
    const runsOf = (cluster: string) =>
      runs.filter((run) => run.workload === workload && run.config === cluster);
    const shown = metrics.filter((metric) =>
      names.some((name) => spreadOver(runsOf(name), metric) !== null)
    );
    const rows = shown.map((metric) => {
      const spreads = names.map((name) => spreadOver(runsOf(name), metric));
      const label = metric.unit === "" ? metric.name : `${metric.name} (${metric.unit})`;
      const factors = others.map((name) => factorText(runsOf(first), runsOf(name), metric));
      return [label, ...spreads.map((spread) => spread ? formatSpread(spread) : "-"), ...factors];
    });
    return {
      workload,
      header: ["", ...names, ...others.map((name) => `${first} vs ${name}`)],
      rows,
      factors: shown.map((metric) =>
        others.map((name) => factorOver(runsOf(first), runsOf(name), metric)?.mean ?? null)
      ),
    };
  });
}

/**
 * How many times better the first cluster is: the mean over the seeds of the ratios. Null if no
 * direction of the metric is better, or a value is 0.
 */
export function factorOver(
  ours: readonly RunResult[],
  theirs: readonly RunResult[],
  { valueOf, isLowerBetter }: Metric,
): Spread | null {
  if (isLowerBetter === null) return null;
  const factors: number[] = [];
  for (const run of ours) {
    const other = theirs.find(({ seed }) => seed === run.seed);
    const our = valueOf(run), their = other ? valueOf(other) : null;
    if (our === null || their === null || our === 0 || their === 0) continue;
    factors.push(isLowerBetter ? their / our : our / their);
  }
  return factors.length === 0 ? null : spreadOf(factors);
}

/** "7.70x (6.1 to 9.3)". */
function factorText(ours: readonly RunResult[], theirs: readonly RunResult[], metric: Metric) {
  const factor = factorOver(ours, theirs, metric);
  if (factor === null) return "";
  const { mean, min, max, count } = factor;
  const range = count > 1 ? ` (${formatNumber(min)} to ${formatNumber(max)})` : "";
  return `${formatNumber(mean)}x${range}`;
}
