/** The result of a benchmark in a sentence. */
import { formatNumber } from "../../core/stats/spread.ts";
import type { RunResult } from "../run.ts";
import type { ComparedFigure } from "./comparison.ts";

/** Of one run. */
export function runSentence({ summary, requests }: RunResult): string {
  const { latencies: { ttft, tpot }, completed, failed } = summary;
  const ended = failed === 0
    ? `All ${requests.length} requests succeeded.`
    : `${failed} of ${completed + failed} requests failed.`;
  if (completed === 0) return ended;
  const ms = (value: number) => `${formatNumber(value)} ms`;
  const first = `median time to first token ${ms(ttft.median)}, P99 ${ms(ttft.percentile(99))}`;
  const perToken = tpot.count === 0 ? "" : `; median time per token ${ms(tpot.median)}`;
  const throughput = `${formatNumber(summary.requestThroughput)} requests and ` +
    `${formatNumber(summary.outputThroughput)} output tokens a second`;
  return `${ended} ${first.replace("median", "Median")}${perToken}; ${throughput}.`;
}

/** Figures that say most, as `compareRuns` names them. */
const NAMED = ["Median TTFT (ms)", "P99 TTFT (ms)", "Median TPOT (ms)", "Output tokens/s"];

/** Of server B against server A. */
export function comparisonSentence(figures: readonly ComparedFigure[], numRounds: number): string {
  const parts = figures.filter(({ name, ratio }) => ratio !== null && NAMED.includes(name))
    .map(({ name, ratio }) => `${name.replace(" (ms)", "")} ${formatNumber(ratio!)}x`);
  const rounds = numRounds === 1
    ? "one round, and another may give another result"
    : `medians of ${numRounds} rounds`;
  return parts.length === 0
    ? "The figures of A are 0, so that there are no ratios."
    : `B against A: ${parts.join(", ")}; ${rounds}.`;
}
