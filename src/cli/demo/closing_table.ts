/** The table at the end of the demo. */
import { quantile } from "../../core/stats/distribution.ts";
import { textTable } from "../../report/text_table.ts";
import type { ActResult } from "./act.ts";

/** What both services did with the same requests at the same time. */
export interface Round {
  readonly without: ActResult;
  readonly migrating: ActResult;
}

/** Counts and latencies are of all rounds together. */
export function closingTable(rounds: readonly Round[]): string {
  const without = rounds.map((round) => round.without);
  const migrating = rounds.map((round) => round.migrating);
  const row = (name: string, figure: (acts: readonly ActResult[]) => string) => [
    name,
    figure(without),
    figure(migrating),
  ];
  const sum = (name: string, of: (act: ActResult) => number) =>
    row(name, (acts) => String(acts.reduce((total, act) => total + of(act), 0)));
  return textTable(["", "without migration", "with migration"], [
    sum("requests", ({ records }) => records.length),
    sum("lost", ({ records }) => numLost(records)),
    sum("resumed after a kill", ({ resumed }) => resumed),
    sum("moved to another instance", ({ migrations }) => migrations),
    row("worst downtime of a move", worstDowntime),
    sum("preempted", ({ preemptions }) => preemptions),
    row("median time to first token", (acts) => milliseconds(quantile(firstTokens(acts), 0.5))),
    row("P99 time to first token", (acts) => milliseconds(quantile(firstTokens(acts), 0.99))),
    row("P99 time per token", (acts) => milliseconds(quantile(perToken(acts), 0.99))),
  ]);
}

/** Ratios nearer to 1 are no difference. */
const SAME = 1.05;

/** What migration changed: the ratios of the table's P99 rows, and of each round, which may differ. */
export function gainSentence(rounds: readonly Round[]): string {
  const gain = (of: (acts: readonly ActResult[]) => Float64Array, some: readonly Round[]) =>
    quantile(of(some.map(({ without }) => without)), 0.99) /
    quantile(of(some.map(({ migrating }) => migrating)), 0.99);
  const each = rounds.map((round) => gain(firstTokens, [round]).toFixed(1)).join(", ");
  return `With migration the P99 time to first token is ${inWords(gain(firstTokens, rounds))} ` +
    `(${rounds.length === 1 ? "one round: another may differ" : `by round: ${each}`}), ` +
    `the one per token ${inWords(gain(perToken, rounds))}.`;
}

/** @param gain below 1: a loss */
function inWords(gain: number): string {
  if (gain < SAME && gain > 1 / SAME) return "about the same";
  return gain > 1 ? `${gain.toFixed(1)} times shorter` : `${(1 / gain).toFixed(1)} times longer`;
}

/** A last sentence: whether the answers were the same. */
export function sameAnswers(rounds: readonly Round[]): string {
  const pairs = rounds.flatMap(({ without, migrating }) =>
    without.records.map(({ text }, i) => [text, migrating.records[i]?.text])
  );
  const same = pairs.filter(([one, other]) => one === other).length;
  return same === pairs.length
    ? `All ${same} answers are the same, token by token, moved and resumed or not.`
    : `${same} of ${pairs.length} answers are the same.`;
}

function worstDowntime(acts: readonly ActResult[]): string {
  const times = acts.flatMap(({ worstDowntimeMs }) => worstDowntimeMs ?? []);
  return times.length === 0 ? "-" : milliseconds(Math.max(...times));
}

function numLost(records: ActResult["records"]): number {
  return records.filter(({ failure }) => failure !== null).length;
}

function firstTokens(acts: readonly ActResult[]): Float64Array {
  return sorted(
    acts.flatMap(({ records }) => records.map(({ firstMs, dueMs }) => firstMs - dueMs)),
  );
}

function perToken(acts: readonly ActResult[]): Float64Array {
  return sorted(
    acts.flatMap(({ records }) =>
      records.map(({ firstMs, lastMs, outputTokens }) => (lastMs - firstMs) / (outputTokens - 1))
    ),
  );
}

function sorted(values: readonly number[]): Float64Array {
  return Float64Array.from(values.filter(Number.isFinite)).sort();
}

function milliseconds(ms: number): string {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  return ms < 999.5 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;
}
