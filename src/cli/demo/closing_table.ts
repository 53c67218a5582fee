/** The table at the end of the demo. */
import { quantile } from "../../core/stats/distribution.ts";
import { textTable } from "../../report/text_table.ts";
import type { ActResult } from "./act.ts";

/** @param before without migration @param after with it, of the same requests */
export function closingTable(before: ActResult, after: ActResult): string {
  const row = (name: string, figure: (act: ActResult) => string) => [
    name,
    figure(before),
    figure(after),
  ];
  return textTable(["", "without migration", "with migration"], [
    row("requests", ({ records }) => String(records.length)),
    row("lost", ({ records }) => String(numLost(records))),
    row("resumed after the kill", ({ summary }) => String(summary.resumed)),
    row("moved to another instance", ({ summary }) => String(summary.migrations)),
    row(
      "worst downtime of a move",
      ({ summary: { worstDowntimeMs } }) =>
        worstDowntimeMs === null ? "-" : milliseconds(worstDowntimeMs),
    ),
    row("preempted", ({ summary }) => String(summary.preemptions)),
    row("median time to first token", (act) => milliseconds(quantile(firstTokens(act), 0.5))),
    row("P99 time to first token", (act) => milliseconds(quantile(firstTokens(act), 0.99))),
    row("P99 time per token", (act) => milliseconds(quantile(perToken(act), 0.99))),
  ]);
}

/** Speeds of the machine within this factor are about the same. */
const SAME_SPEED = 1.25;

/**
 * A warning if other programs slowed one of the acts; null if both had the same machine.
 * @param before,after output tokens per second, measured at the start of each act
 */
export function speedWarning(before: number, after: number): string | null {
  if (Math.max(before, after) < SAME_SPEED * Math.min(before, after)) return null;
  return `This machine made ${before.toFixed(0)} tokens a second before the first act and ` +
    `${
      after.toFixed(0)
    } before the second: other programs use it, so the times of the acts say little.`;
}

/** A last sentence: whether the answers were the same. */
export function sameAnswers(before: ActResult, after: ActResult): string {
  const pairs = before.records.map((record, i) => [record.text, after.records[i]?.text]);
  const same = pairs.filter(([one, other]) => one === other).length;
  return same === pairs.length
    ? `All ${same} answers are the same, token by token, moved and resumed or not.`
    : `${same} of ${pairs.length} answers are the same.`;
}

function numLost(records: ActResult["records"]): number {
  return records.filter(({ failure }) => failure !== null).length;
}

function firstTokens({ records }: ActResult): Float64Array {
  return sorted(records.map(({ firstMs, dueMs }) => firstMs - dueMs));
}

function perToken({ records }: ActResult): Float64Array {
  return sorted(
    records.map(({ firstMs, lastMs, outputTokens }) => (lastMs - firstMs) / (outputTokens - 1)),
  );
}

function sorted(values: readonly number[]): Float64Array {
  return Float64Array.from(values.filter(Number.isFinite)).sort();
}

function milliseconds(ms: number): string {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  return ms < 999.5 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;
}
