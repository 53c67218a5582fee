/** The outcome of a soak, as Markdown. */
import { type Footprint, LEVEL_FILES, LEVEL_GROWTH, type Trend, trendOf } from "./footprints.ts";
import type { Counts } from "./load.ts";

export interface SoakOutcome {
  /** What was built. */
  readonly commit: string;
  readonly minutes: number;
  readonly seed: number;
  readonly counts: Readonly<Counts>;
  readonly reasons: readonly string[];
  readonly kills: number;
  /** Migrations that were committed, as `/metrics` counts them. */
  readonly migrations: number;
  /** By the name of the process. */
  readonly series: ReadonlyMap<string, readonly Footprint[]>;
}

/** What does not hold; null if all does. */
export function verdictOf({ counts, series, minutes }: SoakOutcome): string | null {
  if (counts.lost > 0) return `${counts.lost} requests were lost or brought something else`;
  const trends = trendsOf(series, minutes);
  if (trends.length < 2) return "no instance lived through the run";
  const growing = trends.filter(([, { isLevel }]) => !isLevel).map(([name]) => name);
  return growing.length === 0 ? null : `not level: ${growing.join(", ")}`;
}

export function summaryOf(outcome: SoakOutcome): string {
  const { commit, minutes, seed, counts, kills, migrations, series } = outcome;
  const rows = trendsOf(series, minutes).map(([name, trend]) =>
    `| ${
      [
        name,
        `${mebibytes(trend.earlyBytes)} MiB`,
        `${mebibytes(trend.lateBytes)} MiB`,
        `${mebibytes(trend.bytesPerHour)} MiB`,
        trend.earlyFiles,
        trend.lateFiles,
        trend.isLevel ? "yes" : "NO",
      ].join(" | ")
    } |`
  );
  const verdict = verdictOf(outcome);
  const others = [...series.values()].filter((one) => trendOf(one, minutes) === null);
  return `# The last run of \`deno task soak\`

${new Date().toISOString().slice(0, 10)}, commit ${commit}, ${navigator.hardwareConcurrency} cores.
${minutes} minutes, seed ${seed}: **${verdict ?? "all holds"}**.

- ${counts.streams} streams, each compared with that of a quiet run, ${counts.bursts} bursts among them;
  ${counts.unique} requests with a prompt of their own; ${counts.left} clients that left;
  ${counts.refused} bad requests, refused. **${counts.lost} requests were lost** or brought something else.
- ${migrations} migrations committed. ${kills} instances were killed; the oldest never was.
- ${others.length} instances did not live long enough to have a trend.

| process | memory, 2nd quarter | last quarter | slope per hour | open files, 2nd quarter | last quarter | level |
| - | -: | -: | -: | -: | -: | -: |
${rows.join("\n")}

Every garbage collection of V8 is a full one here, so that resident memory is memory in use: otherwise the heap
grows and shrinks by a third. Memory is the median of looks every 10 s; the slope is that of least squares behind the
first quarter, and has pages of the KV pool (16 MiB) in it that an instance uses for the first time; open files are the most that were seen. A process is level if its memory grew by at most
${
    100 * LEVEL_GROWTH
  }%, and its open files by at most ${LEVEL_FILES}, from the second quarter of the run to the last.
`;
}

function trendsOf(
  series: SoakOutcome["series"],
  minutes: number,
): [name: string, Trend][] {
  return [...series].flatMap(([name, one]): [string, Trend][] => {
    const trend = trendOf(one, minutes);
    return trend === null ? [] : [[name, trend]];
  });
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
