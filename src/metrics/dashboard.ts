/**
 * A dashboard for Grafana (`llumnix grafana`). Every API server shows the whole cluster, so that numbers of
 * the cluster are taken once (`max by`) before they are added.
 */

/** A panel's place is found by {@linkcode place}. */
interface Panel {
  readonly title: string;
  readonly description: string;
  readonly type: "timeseries" | "stat";
  /** Of the 24 columns of a dashboard. */
  readonly width: 4 | 8 | 12;
  readonly unit: string;
  /** PromQL, and the name of its lines. */
  readonly queries: readonly (readonly [expr: string, legend: string])[];
  /** Lines are areas, one on top of the other. */
  readonly isStacked?: boolean;
}

const ROW_HEIGHT = 8;
const STAT_HEIGHT = 4;
const NUM_COLUMNS = 24;

const at = '{job=~"$job",instance=~"$server"}';
/** The same with more conditions. */
const where = (more: string) => `{job=~"$job",instance=~"$server",${more}}`;
const rate = (name: string, labels = at) => `rate(${name}${labels}[$__rate_interval])`;

function quantiles(name: string, labels = at): Panel["queries"] {
  return [0.5, 0.9, 0.99].map((share) => [
    `histogram_quantile(${share}, sum by (le) (${rate(`${name}_bucket`, labels)}))`,
    `P${share * 100}`,
  ]);
}

const panels: readonly Panel[] = [
  {
    title: "Instances",
    description: "Instances that serve.",
    type: "stat",
    width: 4,
    unit: "none",
    queries: [[
      `count(max by (job, instance_id) (llumnix:instance_info${where('state="serving"')}))`,
      "serving",
    ]],
  },
  {
    title: "Running",
    description: "Requests that run.",
    type: "stat",
    width: 4,
    unit: "none",
    queries: [[`sum(max by (job, instance_id) (vllm:num_requests_running${at}))`, "running"]],
  },
  {
    title: "Waiting",
    description: "Requests that wait in a queue.",
    type: "stat",
    width: 4,
    unit: "none",
    queries: [[`sum(max by (job, instance_id) (vllm:num_requests_waiting${at}))`, "waiting"]],
  },
  {
    title: "KV cache",
    description: "KV blocks in use.",
    type: "stat",
    width: 4,
    unit: "percentunit",
    queries: [[`avg(vllm:gpu_cache_usage_perc${at})`, "in use"]],
  },
  {
    title: "Migrations, last hour",
    description: "Requests that moved.",
    type: "stat",
    width: 4,
    unit: "none",
    queries: [[
      `sum(max by (job, backend) (increase(llumnix:migrations_total${
        where('outcome="committed"')
      }[1h])))`,
      "moved",
    ]],
  },
  {
    title: "Lost instances, last hour",
    description: "Instances that ended unexpectedly.",
    type: "stat",
    width: 4,
    unit: "none",
    queries: [[
      `sum(max by (job) (increase(llumnix:instance_changes_total${where('change="lost"')}[1h])))`,
      "lost",
    ]],
  },
  {
    title: "Time to first token",
    description: "From a request's arrival to its first token.",
    type: "timeseries",
    width: 8,
    unit: "s",
    queries: quantiles("vllm:time_to_first_token_seconds"),
  },
  {
    title: "Time per output token",
    description: "Between two tokens of a request.",
    type: "timeseries",
    width: 8,
    unit: "s",
    queries: quantiles("vllm:time_per_output_token_seconds"),
  },
  {
    title: "Request latency",
    description: "From a request's arrival to its end.",
    type: "timeseries",
    width: 8,
    unit: "s",
    queries: quantiles("vllm:e2e_request_latency_seconds"),
  },
  {
    title: "Throughput",
    description: "Tokens of prompts, and of output.",
    type: "timeseries",
    width: 8,
    unit: "short",
    queries: [
      [`sum(${rate("vllm:prompt_tokens_total")})`, "prompt tokens/s"],
      [`sum(${rate("vllm:generation_tokens_total")})`, "output tokens/s"],
    ],
  },
  {
    title: "Requests that ended",
    description: "By reason, and failed ones by kind of error.",
    type: "timeseries",
    width: 8,
    unit: "reqps",
    queries: [
      [`sum by (finished_reason) (${rate("vllm:request_success_total")})`, "{{finished_reason}}"],
      // Each kind has a counter: without the condition, kinds that never happen are lines at 0.
      [`sum by (kind) (${rate("llumnix:failed_requests_total")}) > 0`, "error: {{kind}}"],
    ],
  },
  {
    title: "Queue time by priority (P90)",
    description: "From a request's arrival to its first step.",
    type: "timeseries",
    width: 8,
    unit: "s",
    queries: [[
      `histogram_quantile(0.9, sum by (le, priority) (${
        rate("vllm:request_queue_time_seconds_bucket")
      }))`,
      "{{priority}}",
    ]],
  },
  {
    title: "KV cache by instance",
    description: "Where lines run together, migration has evened the load out.",
    type: "timeseries",
    width: 8,
    unit: "percentunit",
    queries: [[`max by (instance_id) (vllm:gpu_cache_usage_perc${at})`, "{{instance_id}}"]],
  },
  {
    title: "Running requests by instance",
    description: "",
    type: "timeseries",
    width: 8,
    unit: "none",
    queries: [[`max by (instance_id) (vllm:num_requests_running${at})`, "{{instance_id}}"]],
    isStacked: true,
  },
  {
    title: "Waiting requests by instance",
    description: "",
    type: "timeseries",
    width: 8,
    unit: "none",
    queries: [[`max by (instance_id) (vllm:num_requests_waiting${at})`, "{{instance_id}}"]],
    isStacked: true,
  },
  {
    title: "Load by instance",
    description: "The dispatch load, by --load-metric; missing while it is infinite.",
    type: "timeseries",
    width: 8,
    unit: "none",
    queries: [[
      `max by (instance_id) (llumnix:instance_load${where('kind="dispatch"')})`,
      "{{instance_id}}",
    ]],
  },
  {
    title: "Freeness by instance",
    description: "Decode steps for which the free blocks last.",
    type: "timeseries",
    width: 8,
    unit: "none",
    queries: [[`max by (instance_id) (llumnix:instance_freeness${at})`, "{{instance_id}}"]],
  },
  {
    title: "Preemptions and resumed requests",
    description: "",
    type: "timeseries",
    width: 8,
    unit: "reqps",
    queries: [
      [`sum(max by (job, instance_id) (${rate("vllm:num_preemptions_total")}))`, "preempted"],
      [`sum(max by (job) (${rate("llumnix:resumed_requests_total")}))`, "resumed"],
    ],
  },
  {
    title: "Migrations",
    description: "By outcome; without orders that found no request to move.",
    type: "timeseries",
    width: 8,
    unit: "ops",
    queries: [[
      `sum by (backend, outcome) (max by (job, backend, outcome, phase) (${
        rate("llumnix:migrations_total", where('outcome!="nothing"'))
      }))`,
      "{{backend}} {{outcome}}",
    ]],
  },
  {
    title: "Migration downtime",
    description: "Time for which a request that moved did not run.",
    type: "timeseries",
    width: 8,
    unit: "s",
    queries: quantiles("llumnix:migration_downtime_seconds"),
  },
  {
    title: "Migration speed",
    description: "Bytes copied, in the time in which the backend copied.",
    type: "timeseries",
    width: 8,
    unit: "Bps",
    queries: [[
      `sum by (backend) (${rate("llumnix:migrated_bytes_total")}) / ` +
      `sum by (backend) (${rate("llumnix:migration_transfer_seconds_total")})`,
      "{{backend}}",
    ]],
  },
  {
    title: "Instances",
    description: "By state, and how many there should be.",
    type: "timeseries",
    width: 12,
    unit: "none",
    queries: [
      [
        `count by (state) (max by (job, instance_id, state) (llumnix:instance_info${at}))`,
        "{{state}}",
      ],
      [`max(llumnix:expected_instances${at})`, "expected"],
    ],
  },
  {
    title: "Dispatch decisions",
    description: "Time that the manager took for each.",
    type: "timeseries",
    width: 12,
    unit: "s",
    queries: quantiles("llumnix:dispatch_decision_seconds"),
  },
];

/** The dashboard, as Grafana imports it. */
export function dashboard(): Readonly<Record<string, unknown>> {
  return {
    title: "Llumnix",
    uid: "llumnix",
    tags: ["llumnix", "vllm", "llm"],
    description: "Instances, requests and migrations of a Llumnix service.",
    schemaVersion: 39,
    version: 1,
    editable: true,
    refresh: "10s",
    time: { from: "now-30m", to: "now" },
    templating: { list: [dataSource, jobs, servers] },
    panels: place(panels).map((one, i) => ({ id: i + 1, ...one })),
  };
}

const dataSource = {
  name: "datasource",
  label: "Data source",
  type: "datasource",
  query: "prometheus",
};

const jobs = variable("job", "Job", "label_values(llumnix:build_info, job)");
const servers = variable(
  "server",
  "Server",
  'label_values(llumnix:build_info{job=~"$job"}, instance)',
);

/** A choice among values that Prometheus knows. */
function variable(name: string, label: string, query: string) {
  return {
    name,
    label,
    type: "query",
    datasource: { type: "prometheus", uid: "${datasource}" },
    query: { query, refId: name },
    refresh: 2,
    includeAll: true,
    multi: true,
    allValue: ".*",
    current: { text: "All", value: "$__all" },
  };
}

/** Puts panels side by side, row under row. */
function place(all: readonly Panel[]): Readonly<Record<string, unknown>>[] {
  let x = 0, y = 0, height = 0;
  return all.map((panel) => {
    if (x + panel.width > NUM_COLUMNS) {
      x = 0;
      y += height;
    }
    height = panel.type === "stat" ? STAT_HEIGHT : ROW_HEIGHT;
    const gridPos = { x, y, w: panel.width, h: height };
    x += panel.width;
    return shown(panel, gridPos);
  });
}

function shown(panel: Panel, gridPos: object): Readonly<Record<string, unknown>> {
  const { title, description, type, unit, queries, isStacked = false } = panel;
  const custom = {
    fillOpacity: isStacked ? 40 : 8,
    lineWidth: 1,
    showPoints: "never",
    stacking: { mode: isStacked ? "normal" : "none" },
  };
  const legend = { showLegend: true, displayMode: "list", placement: "bottom", calcs: [] };
  const series = { tooltip: { mode: "multi", sort: "desc" }, legend };
  return {
    title,
    description,
    type,
    gridPos,
    datasource: { type: "prometheus", uid: "${datasource}" },
    fieldConfig: {
      defaults: type === "stat" ? { unit } : { unit, custom },
      overrides: [],
    },
    options: type === "stat"
      ? { reduceOptions: { calcs: ["lastNotNull"] }, graphMode: "area", colorMode: "none" }
      : series,
    targets: queries.map(([expr, legendFormat], i) => ({
      refId: String.fromCharCode(65 + i),
      expr,
      legendFormat,
    })),
  };
}
