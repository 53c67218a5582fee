import type { Distribution } from "../../core/stats/distribution.ts";
import type { Chart, HeatMap, LineChart, Report, ReportSection } from "../../report/report.ts";
import type { ClusterSample } from "./cluster_sampler.ts";
import type { Comparison } from "./comparison.ts";
import type { ClusterConfig } from "./experiment_config.ts";
import { type Metric, metrics, spreadOver } from "./metrics.ts";
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

/**
 * A comparison as a report: all workloads together, then each by itself.
 * @param written options of each cluster, as on a command line
 */
export function resultsReport(
  comparison: Comparison,
  runs: readonly RunResult[],
  written: readonly string[],
): Report {
  const { title, seeds, workloads, clusters } = comparison;
  const sections = resultsTables(comparison, runs).map((table) =>
    workloadSection(comparison, runs, table)
  );
  return {
    title,
    notes: [
      `${instancesText(clusters[0])} of ${clusters[0].engine.model} on ` +
      `${clusters[0].engine.gpuType}; ${requestsText(runs)} requests a run; ${seeds.length} ` +
      `seed${seeds.length === 1 ? "" : "s"}.`,
      "Figures are means over the seeds ± standard deviation. A factor above 1 says how many " +
      `times better ${clusters[0].name} is, seed by seed (least to greatest). Distributions are ` +
      `of all seeds, courses over time of seed ${seeds[0]}.`,
      ...clusters.map(({ name }, i) => `${name}: ${written[i] || "all options at their defaults"}`),
    ],
    sections: workloads.length > 1 ? [overview(comparison, runs), ...sections] : sections,
  };
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
      points: names.flatMap((workload, i): [number, number][] => {
        const ours = runs.filter((run) => run.config === cluster.name && run.workload === workload);
        const spread = spreadOver(ours, metric);
        return spread === null ? [] : [[i, spread.mean]];
      }),
    }));
    const values = series.flatMap(({ points }) => points.map(([, value]) => value));
    const isConstant = values.every((value) => value === 0) ||
      (name === "instance-seconds" && !clusters.some(({ scaling }) => scaling.enableScaling));
    if (isConstant) return [];
    return [sweepChart(metric, shortNames(names), series)];
  });
  return { title: "All workloads", blocks: [{ type: "charts", charts }] };
}

function sweepChart(
  { name, unit }: Metric,
  names: readonly string[],
  series: LineChart["series"],
): LineChart {
  const values = series.flatMap(({ points }) => points.map(([, value]) => value));
  const isWide = Math.max(...values) > 20 * Math.min(...values.filter((value) => value > 0));
  return {
    type: "lines",
    title: name,
    x: { label: "workload", scale: "linear", names },
    y: { label: unit, scale: isWide ? "log" : "linear" },
    series,
    hasMarks: true,
  };
}

/** Shortens workload names so that they fit next to each other. */
function shortNames(names: readonly string[]): string[] {
  return names.map((name) => name.replace(" req/s", "").replace(/^.*?(\d[\d.]* CV)/, "$1"));
}

function workloadSection(
  { clusters }: Comparison,
  runs: readonly RunResult[],
  { workload, header, rows }: ResultsTable,
): ReportSection {
  const here = runs.filter((run) => run.workload === workload);
  const runsOf = (cluster: string) => here.filter(({ config }) => config === cluster);
  const first = clusters.map(({ name }) => runsOf(name)[0]);
  const maps = first.slice(0, MAX_MAPS).map(memoryMap);
  return {
    title: workload,
    blocks: [
      { type: "table", table: { header, rows } },
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
      return { name, color, points: cumulative(ours) };
    }),
  };
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
    y: { label: unit, scale: "linear" },
    series: runs.map(({ config, samples }, color) => ({
      name: config,
      color,
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
    xRange: [0, (samples.at(-1)?.timeMs ?? 0) / 1000],
    rows: numbered.map(({ id, number }) => ({
      name: `instance ${number}`,
      values: samples.map(({ byInstance }) => byInstance[id]?.used ?? null),
    })),
    scaleLabel: "all blocks",
  };
}
