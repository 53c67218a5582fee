import { formatNumber, spreadOf } from "../../core/stats/spread.ts";
import type { Comparison } from "./comparison.ts";
import { metrics, spreadOver } from "./metrics.ts";
import { factorOver } from "./results_table.ts";
import type { RunResult } from "./run_result.ts";

/** What most readers want to know: the slowest percent of the first tokens. */
const metric = metrics.find(({ name }) => name === "TTFT P99")!;

/** Within this factor, two figures are about the same. */
const NOTABLE = 1.02;

/** The result of a comparison in a sentence. */
export function resultSentence(comparison: Comparison, runs: readonly RunResult[]): string {
  const [ours, ...others] = comparison.clusters.map(({ name }) => name);
  if (others.length === 0) return ownSentence(comparison, runs, ours);
  const parts = others.flatMap((other) => factorWords(comparison, runs, ours, other));
  if (parts.length === 0) return ownSentence(comparison, runs, ours);
  return `P99 time to first token of ${ours}: ${parts.join(", ")}; ${seedWords(comparison)}.`;
}

/** "5.1x shorter than with load (2.3x to 9.8x)": the mean of the factors, and their range. */
function factorWords(
  { workloads }: Comparison,
  runs: readonly RunResult[],
  ours: string,
  other: string,
): string[] {
  const factors = workloads.flatMap(({ name }) => {
    const runsOf = (cluster: string) =>
      runs.filter(({ workload, config }) => workload === name && config === cluster);
    return factorOver(runsOf(ours), runsOf(other), metric) ?? [];
  });
  if (factors.length === 0) return [];
  const mean = spreadOf(factors.map(({ mean }) => mean)).mean;
  const least = Math.min(...factors.map(({ min }) => min));
  const most = Math.max(...factors.map(({ max }) => max));
  const range = least === most ? "" : ` (${formatNumber(least)}x to ${formatNumber(most)}x)`;
  if (mean > 1 / NOTABLE && mean < NOTABLE) return [`about as long as with ${other}${range}`];
  const words = mean > 1
    ? `${formatNumber(mean)}x shorter than with ${other}`
    : `${formatNumber(1 / mean)}x longer than with ${other}`;
  return [`${words}${range}`];
}

function seedWords({ seeds, workloads }: Comparison): string {
  const over = workloads.length === 1 ? "" : `mean of ${workloads.length} workloads, `;
  if (seeds.length === 1) return `${over}one seed, and another may give another result`;
  return `${over}${seeds.length} seeds`;
}

function ownSentence({ workloads }: Comparison, runs: readonly RunResult[], name: string): string {
  const parts = workloads.flatMap(({ name: workload }) => {
    const spread = spreadOver(runs.filter((run) => run.workload === workload), metric);
    return spread === null ? [] : [`${formatNumber(spread.mean)} s with ${workload}`];
  });
  if (parts.length === 0) return `No request of ${name} got a token.`;
  return `P99 time to first token of ${name}: ${parts.join(", ")}.`;
}
