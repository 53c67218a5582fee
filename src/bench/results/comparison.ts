/** Several runs of two servers, compared by the medians of their figures. */
import { formatNumber } from "../../core/stats/spread.ts";
import type { Table } from "../../report/report.ts";
import type { RunResult } from "../run.ts";
import { latencyTitles } from "../summary.ts";
import { percentileName, type ShownOptions } from "./shown.ts";

/** A figure of a run. */
interface Figure {
  readonly name: string;
  readonly of: (result: RunResult) => number;
}

/** A figure of both servers. */
export interface ComparedFigure {
  readonly name: string;
  /** Medians over the rounds. */
  readonly a: number;
  readonly b: number;
  /**
   * The median over the rounds of B / A, which the medians of A and B may not have; null where an A is 0.
   */
  readonly ratio: number | null;
  /** The least and the greatest B / A of a round. */
  readonly ratioRange: readonly [number, number];
}

export interface ComparisonTable {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** @param a, b the runs of each server, one for each round */
export function compareRuns(
  a: readonly RunResult[],
  b: readonly RunResult[],
  shown: ShownOptions,
): ComparedFigure[] {
  return figuresOf(shown).map(({ name, of }) => {
    const ofA = a.map(of), ofB = b.map(of);
    const ratios = ofB.map((value, i) => value / ofA[i]);
    const isComparable = ofA.every((value) => value !== 0);
    return {
      ...{ name, a: median(ofA), b: median(ofB), ratio: isComparable ? median(ratios) : null },
      ratioRange: [Math.min(...ratios), Math.max(...ratios)],
    };
  });
}

export function comparisonTable(
  figures: readonly ComparedFigure[],
  numRounds: number,
): ComparisonTable {
  const times = (ratio: number) => `${formatNumber(ratio)}x`;
  const rows = figures.map(({ name, a, b, ratio, ratioRange: [least, greatest] }) => [
    name,
    formatNumber(a),
    formatNumber(b),
    ratio === null
      ? ""
      : numRounds === 1
      ? times(ratio)
      : `${times(ratio)} (${times(least)} to ${times(greatest)})`,
  ]);
  const header = numRounds === 1
    ? ["one round", "A", "B", "B / A"]
    : [`medians of ${numRounds} rounds`, "A", "B", "B / A in a round"];
  return { header, rows };
}

/** A ratio nearer to 1 is no difference. */
const NOTABLE = 1.02;

/** The table of a report: it marks where B is better or worse. */
export function markedTable(figures: readonly ComparedFigure[], numRounds: number): Table {
  const { header, rows } = comparisonTable(figures, numRounds);
  return {
    header,
    rows: rows.map(([name, a, b, text], i) => {
      const { ratio } = figures[i];
      if (ratio === null || (ratio < NOTABLE && ratio > 1 / NOTABLE)) return [name, a, b, text];
      const isMore = ratio > 1, isThroughput = name.endsWith("/s");
      return [name, a, b, { text, verdict: isMore === isThroughput ? "better" : "worse" }];
    }),
  };
}

function figuresOf({ latencies, percentiles }: ShownOptions): Figure[] {
  return [
    { name: "Failed requests", of: ({ summary }) => summary.failed },
    { name: "Requests/s", of: ({ summary }) => summary.requestThroughput },
    { name: "Output tokens/s", of: ({ summary }) => summary.outputThroughput },
    ...latencies.flatMap((name) => {
      const [short] = latencyTitles[name];
      return [
        {
          name: `Mean ${short} (ms)`,
          of: ({ summary }: RunResult) => summary.latencies[name].mean,
        },
        {
          name: `Median ${short} (ms)`,
          of: ({ summary }: RunResult) => summary.latencies[name].median,
        },
        ...percentiles.map((p) => ({
          name: `P${percentileName(p)} ${short} (ms)`,
          of: ({ summary }: RunResult) => summary.latencies[name].percentile(p),
        })),
      ];
    }),
  ];
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
