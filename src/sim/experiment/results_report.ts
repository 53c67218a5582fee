import type { Distribution } from "../../core/stats/distribution.ts";
import type {
  BarChart,
  Chart,
  HeatMap,
  LineChart,
  MarkedCell,
  Report,
  ReportSection,
} from "../../report/report.ts";
import type { ClusterSample } from "./cluster_sampler.ts";
import type { Comparison } from "./comparison.ts";
import type { ClusterConfig } from "./experiment_config.ts";
import { type Metric, metrics, spreadOver } from "./metrics.ts";
import { resultSentence } from "./result_sentence.ts";
import { type ResultsTable, resultsTables } from "./results_table.ts";
import type { Latencies } from "./request_recorder.ts";
import type { RunResult } from "./run_result.ts";

/** Metrics that are shown across all workloads. */
const sweptMetrics = [
  "TTFT P99",
  "TTFT mean",
  "end-to-end mean",
  "TPOT P99",
  "preemption loss mean",
  "fragmentation",
  "instance-seconds",
  "high: TTFT P99",
  "high: end-to-end mean",
  "normal: end-to-end mean",
];
/** How many clusters get a heat map of their instances. */
const MAX_MAPS = 4;

/** Where a report comes from. */
export interface ReportOrigin {
  /** Options of each cluster, as on a command line. */
  readonly written: readonly string[];
  /** The whole command line. */
  readonly command: string;
  readonly version: string;
  /** ISO 8601. */
  readonly date: string;
}

/** A comparison as a report: all workloads together, then each by itself. */
export function resultsReport(
  comparison: Comparison,
  runs: readonly RunResult[],
  { written, command, version, date }: ReportOrigin,
): Report {
  const { title, seeds, workloads, clusters } = comparison;
  const sections = resultsTables(comparison, runs).map((table) =>
    workloadSection(comparison, runs, table)
  );
  return {
    title,
    lead: resultSentence(comparison, runs),
    notes: [
      `${instancesText(clusters[0])} of ${clusters[0].engine.model} on ` +
      `${clusters[0].engine.gpuType}; ${requestsText(runs)} requests a run; ${seedsText(seeds)}.`,
      ...(clusters.length > 1 ? [factorNote(clusters[0].name, seeds.length)] : []),
      ...(seeds.length > 1
        ? [
          "Figures are means over the seeds ± standard deviation. Distributions are of all " +
          `seeds, courses over time of seed ${seeds[0]}.`,
        ]
        : []),
      `llumnix ${version}, ${date}`,
    ],
    folded: {
      title: "Command line and options",
      lines: [
        command,
        ...clusters.map(({ name }, i) =>
          `${name}: ${written[i] || "all options at their defaults"}`
        ),
      ],
    },
    sections: workloads.length > 1 ? [overview(comparison, runs), ...sections] : sections,
  };
}

function seedsText(seeds: readonly number[]): string {
  return seeds.length === 1 ? `seed ${seeds[0]} only` : `${seeds.length} seeds`;
}

function factorNote(ours: string, numSeeds: number): string {
  const range = numSeeds > 1 ? ", seed by seed (least to greatest)" : "";
  return `A factor says how many times better ${ours} is${range}. \u25b2 marks where it is better ` +
    "by more than 2%, \u25bc where it is worse.";
}

function instancesText({ manager, scaling }: ClusterConfig): string {
  const { minInstances, maxInstances } = scaling;
  if (scaling.enableScaling) return `${minInstances} to ${maxInstances} instances`;
  return `${manager.initialInstances} instances`;
}

function requestsText(runs: readonly RunResult[]): string {
  const counts = runs.map(({ requests }) => requests);
  const least = Math.min(...counts), most = Math.max(...counts);
  return least === most ? String(least) : `${least} to ${most}`;
}

function overview({ workloads, clusters }: Comparison, runs: readonly RunResult[]): ReportSection {
  const names = workloads.map(({ name }) => name);
  const charts = sweptMetrics.flatMap((name): Chart[] => {
    const metric = metrics.find((one) => one.name === name)!;
    const series = clusters.map((cluster, color) => ({
      name: cluster.name,
      color,
      values: names.map((workload) => {
        const ours = runs.filter((run) => run.config === cluster.name && run.workload === workload);
        return spreadOver(ours, metric)?.mean ?? null;
      }),
    }));
    const values = series.flatMap(({ values }) => values).filter((value) => value !== null);
    const isConstant = values.every((value) => value === 0) ||
      (name === "instance-seconds" && !clusters.some(({ scaling }) => scaling.enableScaling));
    return isConstant ? [] : [sweepChart(metric, shortNames(names), values, series)];
  });
  return { title: "All workloads", blocks: [{ type: "charts", charts }] };
}

function sweepChart(
  { name, unit }: Metric,
  groups: readonly string[],
  values: readonly number[],
  series: BarChart["series"],
): BarChart {
  const isWide = Math.max(...values) > 20 * Math.min(...values.filter((value) => value > 0));
  return {
    type: "bars",
    title: name,
    groups,
    y: { label: unit, scale: isWide ? "log" : "linear" },
    series,
  };
}

/** Shortens workload names so that they fit next to each other. */
function shortNames(names: readonly string[]): string[] {
  return names.map((name) => name.replace(" req/s", "").replace(/^.*?(\d[\d.]* CV)/, "$1"));
}

function workloadSection(
  { clusters }: Comparison,
  runs: readonly RunResult[],
  { workload, header, rows, factors }: ResultsTable,
): ReportSection {
  const here = runs.filter((run) => run.workload === workload);
  const runsOf = (cluster: string) => here.filter(({ config }) => config === cluster);
  const first = clusters.map(({ name }) => runsOf(name)[0]);
  const maps = first.slice(0, MAX_MAPS).map(memoryMap);
  return {
    title: workload,
    blocks: [
      { type: "table", table: { header, rows: markedRows(rows, factors) } },
      {
        type: "charts",
        charts: [
          distributionChart("Time to first token", here, clusters, ({ ttftMs }) => ttftMs),
          tailChart("Late first tokens", here, clusters, ({ ttftMs }) => ttftMs),
          distributionChart("End-to-end latency", here, clusters, ({ e2eMs }) => e2eMs),
          courseChart("Waiting requests", "requests", first, ({ waiting }) => waiting),
          courseChart("Running requests", "requests", first, ({ running }) => running),
          courseChart("KV blocks in use", "% of all", first, ({ used }) => 100 * used),
          courseChart("Fragmentation", "% of all", first, ({ fragmented }) => 100 * fragmented),
          ...(isScaled(first)
            ? [courseChart("Instances", "instances", first, ({ instances }) => instances)]
            : []),
        ],
      },
      { type: "charts", charts: maps },
    ],
  };
}

/** A difference below 2% is none. */
const NOTABLE = 1.02;

function markedRows(rows: ResultsTable["rows"], factors: ResultsTable["factors"]) {
  return rows.map((row, i) =>
    row.map((text, column): string | MarkedCell => {
      const factor = factors[i][column - (row.length - factors[i].length)] ?? null;
      if (factor === null || (factor < NOTABLE && factor > 1 / NOTABLE)) return text;
      return { text, verdict: factor > 1 ? "better" : "worse" };
    })
  );
}

function isScaled(runs: readonly RunResult[]): boolean {
  const counts = runs.flatMap(({ samples }) => samples.map(({ instances }) => instances));
  return new Set(counts).size > 1;
}

/** Cumulative distribution over all seeds. */
function distributionChart(
  title: string,
  runs: readonly RunResult[],
  clusters: Comparison["clusters"],
  of: (latencies: Latencies) => Distribution,
): LineChart {
  return {
    type: "lines",
    title,
    x: { label: "seconds", scale: "log" },
    y: { label: "% of requests", scale: "linear", max: 100 },
    series: clusters.map(({ name }, color) => {
      const ours = runs.filter(({ config }) => config === name).map(({ all }) => of(all));
      return { name, color, isMain: isMain(color, clusters.length), points: cumulative(ours) };
    }),
  };
}

/** The first cluster is the one that the others are compared with. */
function isMain(index: number, count: number): boolean {
  return index === 0 && count > 1;
}

/** The slow end of a distribution: how many requests take longer. */
function tailChart(
  title: string,
  runs: readonly RunResult[],
  clusters: Comparison["clusters"],
  of: (latencies: Latencies) => Distribution,
): LineChart {
  const { series, ...chart } = distributionChart(title, runs, clusters, of);
  return {
    ...chart,
    y: { label: "% of requests that wait longer", scale: "log", max: 100 },
    series: series.map(({ points, ...line }) => ({
      ...line,
      points: points.slice(0, -1).map(([value, share]) => [value, 100 - share] as const),
    })),
  };
}

/** Quantiles of all seeds together: each seed counts as equally many requests. */
function cumulative(distributions: readonly Distribution[]): [number, number][] {
  const values = distributions.flatMap(({ quantiles }) => quantiles).sort((a, b) => a - b);
  return values.map((value, i) => [value / 1000, 100 * i / Math.max(1, values.length - 1)]);
}

function courseChart(
  title: string,
  unit: string,
  runs: readonly RunResult[],
  valueOf: (sample: ClusterSample) => number,
): LineChart {
  return {
    type: "lines",
    title,
    x: { label: "seconds", scale: "linear" },
    y: { label: unit, scale: "linear", isCount: unit === "requests" || unit === "instances" },
    series: runs.map(({ config, samples }, color) => ({
      name: config,
      color,
      isMain: isMain(color, runs.length),
      points: samples.map((sample) => [sample.timeMs / 1000, valueOf(sample)]),
    })),
  };
}

function memoryMap({ config, samples }: RunResult): HeatMap {
  const ids = new Set(samples.flatMap(({ byInstance }) => Object.keys(byInstance)));
  const numbered = [...ids].map((id) => ({ id, number: Number(id.replace(/\D+/g, "")) }))
    .sort((a, b) => a.number - b.number);
  return {
    type: "heat",
    title: `KV blocks in use by instance: ${config}`,
    xLabel: "seconds",
    endX: (samples.at(-1)?.timeMs ?? 0) / 1000,
    rows: numbered.map(({ id, number }) => ({
      name: `instance ${number}`,
      values: samples.map(({ byInstance }) => byInstance[id]?.used ?? null),
    })),
    scaleLabel: "all blocks",
  };
}
