/** Alert rules for Prometheus (`llumnix alerts`). */

interface Alert {
  readonly alert: string;
  readonly expr: string;
  /** How long it holds before it is told. */
  readonly for: string;
  readonly severity: "critical" | "warning";
  readonly summary: string;
  /** What to look at, or to do. */
  readonly description: string;
}

/** Every API server shows the whole cluster: without this, two of them would count instances twice. */
const target = "by (job, instance)";

const expected = `max ${target} (llumnix:expected_instances)`;
const serving = `count ${target} (llumnix:instance_info{state="serving"})`;
const ended = `sum ${target} (increase(llumnix:migrations_total{outcome!="nothing"}[10m]))`;
const failed =
  `sum ${target} (increase(llumnix:migrations_total{outcome!~"nothing|committed|finished"}[10m]))`;

/** The value under which a share of a histogram's samples of the last five minutes lies, in seconds. */
function quantile(share: number, name: string): string {
  return `histogram_quantile(${share}, sum by (job, le) (rate(${name}_bucket[5m])))`;
}

const alerts: readonly Alert[] = [
  {
    alert: "LlumnixManagerDown",
    expr: "llumnix:manager_up == 0",
    for: "1m",
    severity: "critical",
    summary: "The manager does not answer an API server.",
    description:
      "Requests go on, on the instances that are known. Nothing is migrated, scaled or " +
      "replaced until the manager runs again.",
  },
  {
    alert: "LlumnixInstancesMissing",
    expr: `${expected} - (${serving} or 0 * ${expected}) > 0`,
    for: "5m",
    severity: "warning",
    summary: "{{ $value }} instances that should serve do not.",
    description: "They start, drain or fail to start: the log of the manager says which.",
  },
  {
    alert: "LlumnixInstancesCrash",
    expr: `sum ${target} ` +
      '(increase(llumnix:instance_changes_total{change=~"lost|start_failed"}[10m])) >= 3',
    for: "0m",
    severity: "critical",
    summary: "{{ $value }} instances were lost or did not start within 10 minutes.",
    description: "Their requests were resumed elsewhere. The log of the manager has the reasons.",
  },
  {
    alert: "LlumnixRequestsFail",
    expr: "sum by (job, instance, kind) " +
      '(rate(llumnix:failed_requests_total{kind=~"internal|unavailable|model"}[5m])) > 0',
    for: "2m",
    severity: "critical",
    summary: "Requests fail with errors of kind {{ $labels.kind }}.",
    description: "The log of the API server has the reasons.",
  },
  {
    alert: "LlumnixFull",
    expr: "sum by (job, instance) " +
      '(rate(llumnix:failed_requests_total{kind="overloaded"}[5m])) > 0',
    for: "5m",
    severity: "warning",
    summary: "Requests are refused because the service is full.",
    description: "Add instances, or turn on --enable-scaling; --max-queued-requests is the limit.",
  },
  {
    alert: "LlumnixFirstTokenLate",
    expr: `${quantile(0.95, "vllm:time_to_first_token_seconds")} > 10`,
    for: "5m",
    severity: "warning",
    summary:
      "One request in twenty waits more than {{ $value | humanizeDuration }} for its first token.",
    description: "Add instances, or turn on --enable-scaling.",
  },
  {
    alert: "LlumnixQueueing",
    expr: `sum ${target} (vllm:num_requests_waiting) > sum ${target} (vllm:num_requests_running)`,
    for: "10m",
    severity: "warning",
    summary: "More requests wait than run.",
    description: "Add instances, or turn on --enable-scaling.",
  },
  {
    alert: "LlumnixCacheFull",
    expr: `avg ${target} (vllm:gpu_cache_usage_perc) > 0.95`,
    for: "10m",
    severity: "warning",
    summary: "{{ $value | humanizePercentage }} of all KV blocks are in use.",
    description: "Requests wait or are preempted. Add instances, or give them more blocks.",
  },
  {
    alert: "LlumnixPreemptions",
    expr: `sum ${target} (rate(vllm:num_preemptions_total[5m])) > 0.1`,
    for: "10m",
    severity: "warning",
    summary: "{{ $value | humanize }} requests a second are preempted.",
    description: "The KV cache is too small for the load: raise --gpu-memory-utilization, lower " +
      "--max-num-seqs, or add instances.",
  },
  {
    alert: "LlumnixMigrationsFail",
    expr: `(${failed} or 0 * ${ended}) / ${ended} > 0.5 and ${ended} > 10`,
    for: "5m",
    severity: "warning",
    summary: "{{ $value | humanizePercentage }} of the migrations do not move their request.",
    description: "The requests stay where they are. The log of the manager has the reasons.",
  },
  {
    alert: "LlumnixMigrationDowntime",
    expr: `${quantile(0.99, "llumnix:migration_downtime_seconds")} > 0.5`,
    for: "5m",
    severity: "warning",
    summary: "A request that moves stands still for {{ $value | humanizeDuration }}.",
    description: "The migration backend is slow: `llumnix doctor` measures the paths of a host.",
  },
];

/** The rules as YAML, for `rule_files` of Prometheus. */
export async function alertRules(): Promise<string> {
  const { dump } = await import("js-yaml");
  const rules = alerts.map(({ severity, summary, description, ...rule }) => ({
    ...rule,
    labels: { severity },
    annotations: { summary, description },
  }));
  return dump({ groups: [{ name: "llumnix", rules }] }, { lineWidth: 100, noRefs: true });
}
