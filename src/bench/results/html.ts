/** The report of one run, or of several that are compared. */
import { formatNumber } from "../../core/stats/spread.ts";
import type {
  Block,
  Chart,
  LineChart,
  Report,
  ReportSection,
  Series,
  Table,
} from "../../report/report.ts";
import type { Metric } from "../metric.ts";
import type { Timeline } from "../observer.ts";
import type { RunResult } from "../run.ts";
import { type LatencyName, latencyTitles, ttftMs } from "../summary.ts";
import { percentileName, type ShownOptions } from "./shown.ts";

/** A run and how it is called. */
export interface NamedRun {
  readonly name: string;
  readonly result: RunResult;
  /** The number of its server: runs of the same server have the same colour. */
  readonly server: number;
}

/** Points of a distribution's line. */
const NUM_POINTS = 200;
/** Most columns of a timeline, and their least width: less shows single steps, not rates. */
const MAX_COLUMNS = 120, MIN_COLUMN_MS = 500;
/** Migrations that are listed. */
const LISTED_MIGRATIONS = 100;

/**
 * @param head the result in a sentence, and what ran, when and how
 * @param comparison of two servers; null if there is one
 */
export function resultReport(
  head: Pick<Report, "lead" | "notes" | "folded">,
  runs: readonly NamedRun[],
  shown: ShownOptions,
  comparison: Table | null = null,
): Report {
  const sections: ReportSection[] = [
    ...(comparison === null
      ? []
      : [{ title: "Comparison", blocks: [{ type: "table" as const, table: comparison }] }]),
    { title: "Figures", blocks: [figures(runs, shown)] },
    {
      title: "Latencies",
      blocks: [{ type: "charts", charts: shown.latencies.map((name) => cdf(name, runs)) }],
    },
    { title: "Over time", blocks: [{ type: "charts", charts: overTime(runs) }] },
    ...runs.flatMap(({ name, result }) =>
      result.timeline === null
        ? []
        : [instancesSection(runs.length === 1 ? "" : ` (${name})`, result, result.timeline)]
    ),
  ];
  return { title: "Benchmark", ...head, sections };
}

function figures(runs: readonly NamedRun[], shown: ShownOptions): Block {
  const row = (name: string, of: (result: RunResult) => number) => [
    name,
    ...runs.map(({ result }) => formatNumber(of(result))),
  ];
  const count = (name: string, of: (result: RunResult) => number) => [
    name,
    ...runs.map(({ result }) => String(of(result))),
  ];
  const latencyRows = shown.latencies.flatMap((name) => {
    const [short] = latencyTitles[name];
    const figure = (what: string, of: (metric: Metric) => number) =>
      row(`${what} ${short} (ms)`, ({ summary }) => of(summary.latencies[name]));
    return [
      figure("Mean", (metric) => metric.mean),
      figure("Median", (metric) => metric.median),
      ...shown.percentiles.map((p) =>
        figure(`P${percentileName(p)}`, (metric) => metric.percentile(p))
      ),
    ];
  });
  return {
    type: "table",
    table: {
      header: ["", ...runs.map(({ name }) => name)],
      rows: [
        count("Successful requests", ({ summary }) => summary.completed),
        count("Failed requests", ({ summary }) => summary.failed),
        row("Duration (s)", ({ summary }) => summary.durationSeconds),
        row("Requests/s", ({ summary }) => summary.requestThroughput),
        ...(runs.some(({ result }) => result.summary.goodput !== null)
          ? [row("Good requests/s", ({ summary }) => summary.goodput ?? 0)]
          : []),
        row("Output tokens/s", ({ summary }) => summary.outputThroughput),
        row("Total tokens/s", ({ summary }) => summary.totalThroughput),
        ...latencyRows,
        row("P99 sent late (ms)", ({ summary }) => summary.lateMs.percentile(99)),
      ],
    },
  };
}

function cdf(name: LatencyName, runs: readonly NamedRun[]): LineChart {
  const [short, long] = latencyTitles[name];
  return {
    type: "lines",
    title: `${long}: share of ${name === "itl" ? "tokens" : "requests"} below`,
    x: { label: `${short} (ms)`, scale: "log" },
    y: { label: "percent", scale: "linear", max: 100 },
    series: runs.map(({ name: run, result, server: color }, i) => {
      const metric = result.summary.latencies[name];
      const points = metric.count === 0 ? [] : Array.from({ length: NUM_POINTS + 1 }, (_, i) => {
        const percent = 100 * i / NUM_POINTS;
        return [metric.percentile(percent), percent] as const;
      });
      return { name: runs.length === 1 ? "" : run, color, isDashed: isRepeated(runs, i), points };
    }),
  };
}

/** Whether an earlier run measured the same server. */
function isRepeated(runs: readonly NamedRun[], i: number): boolean {
  return runs.findIndex(({ server }) => server === runs[i].server) < i;
}

function overTime(runs: readonly NamedRun[]): Chart[] {
  const chart = (title: string, y: string, of: (result: RunResult) => Series["points"]): Chart => ({
    type: "lines",
    title,
    x: { label: "seconds", scale: "linear" },
    y: { label: y, scale: "linear", isCount: y === "requests" },
    series: runs.map(({ name, result, server: color }, i) => ({
      name: runs.length === 1 ? "" : name,
      ...{ color, isDashed: isRepeated(runs, i), points: of(result) },
    })),
  });
  return [
    chart("Requests that run", "requests", runningPoints),
    chart("Output tokens per second", "tokens/s", tokenPoints),
    chart("Median TTFT of the requests due then", "ms", ttftPoints),
  ];
}

function columnsOf({ startMs, endMs }: RunResult): { numColumns: number; widthMs: number } {
  const durationMs = Math.max(1, endMs - startMs);
  const fitting = Math.floor(durationMs / MIN_COLUMN_MS);
  const numColumns = Math.max(1, Math.min(MAX_COLUMNS, fitting));
  return { numColumns, widthMs: durationMs / numColumns };
}

/** Middles of equal intervals over a run, in seconds, with a value for each. */
function intervals(
  result: RunResult,
  valueOf: (fromMs: number, toMs: number, i: number) => number | null,
): (readonly [number, number])[] {
  const { numColumns, widthMs } = columnsOf(result);
  return Array.from({ length: numColumns }, (_, i) => {
    const fromMs = result.startMs + i * widthMs;
    return [(i + 0.5) * widthMs / 1000, valueOf(fromMs, fromMs + widthMs, i)] as const;
  }).filter((point): point is [number, number] => point[1] !== null);
}

function runningPoints(result: RunResult): Series["points"] {
  return intervals(result, (fromMs, toMs) => {
    const atMs = (fromMs + toMs) / 2;
    return result.records.filter(({ dueMs, endMs }) => dueMs <= atMs && atMs < endMs).length;
  });
}

function tokenPoints(result: RunResult): Series["points"] {
  const { numColumns, widthMs } = columnsOf(result);
  const counts = new Float64Array(numColumns);
  const add = (ms: number) => {
    const column = Math.floor((ms - result.startMs) / widthMs);
    counts[Math.min(numColumns - 1, Math.max(0, column))]++;
  };
  for (const { firstMs, gapsMs } of result.records) {
    if (Number.isNaN(firstMs)) continue;
    let ms = firstMs;
    add(ms);
    for (const gapMs of gapsMs) add(ms += gapMs);
  }
  return intervals(result, (_from, _to, i) => counts[i] / widthMs * 1000);
}

function ttftPoints(result: RunResult): Series["points"] {
  const good = result.records.filter(({ failure }) => failure === null);
  return intervals(result, (fromMs, toMs) => {
    const some = good.filter(({ dueMs }) => fromMs <= dueMs && dueMs < toMs).map(ttftMs)
      .sort((a, b) => a - b);
    return some.length === 0 ? null : some[Math.floor(some.length / 2)];
  });
}

function instancesSection(suffix: string, result: RunResult, timeline: Timeline): ReportSection {
  const { looks, migrations, intervalMs } = timeline;
  const { startMs, endMs } = result;
  const ids = [...new Set(looks.flatMap(({ instances }) => instances.map(({ id }) => id)))].sort();
  const seconds = (ms: number) => (ms - startMs) / 1000;
  const valuesOf = (id: string, of: (instance: Timeline["looks"][0]["instances"][0]) => number) =>
    looks.map(({ instances }) => {
      const instance = instances.find((one) => one.id === id);
      return instance === undefined ? null : of(instance);
    });
  const mostRunning = Math.max(
    1,
    ...looks.flatMap(({ instances }) => instances.map((one) => one.runningRequests)),
  );
  const heat = (title: string, scaleLabel: string, of: Parameters<typeof valuesOf>[1]): Chart => ({
    type: "heat",
    title,
    xLabel: "seconds",
    endX: seconds(endMs),
    scaleLabel,
    rows: ids.map((id) => ({ name: id.slice(0, 12), values: valuesOf(id, of) })),
  });
  const charts: Chart[] = [
    heat(
      "KV cache in use",
      "full",
      ({ usedBlocks, totalBlocks }) => totalBlocks === 0 ? 0 : usedBlocks / totalBlocks,
    ),
    heat(
      "Running requests",
      `${mostRunning} requests`,
      ({ runningRequests }) => runningRequests / mostRunning,
    ),
    {
      type: "lines",
      title: "Migrations so far",
      x: { label: "seconds", scale: "linear" },
      y: { label: "requests", scale: "linear", isCount: true },
      series: [{
        name: `seen every ${intervalMs / 1000} s`,
        color: 0,
        points: [
          [0, 0],
          ...migrations.flatMap(({ atMs }, i) =>
            [[seconds(atMs), i], [seconds(atMs), i + 1]] as const
          ),
          [seconds(endMs), migrations.length],
        ],
      }],
    },
  ];
  const listed: Block = {
    type: "table",
    table: {
      header: ["seconds", "from", "to", "request"],
      rows: migrations.slice(0, LISTED_MIGRATIONS).map(({ atMs, request, from, to }) => [
        seconds(atMs).toFixed(1),
        from,
        to,
        request,
      ]),
    },
  };
  return {
    title: `Instances and migrations${suffix}`,
    blocks: [{ type: "charts", charts }, ...(migrations.length === 0 ? [] : [listed])],
  };
}
