import type { LoadNumber } from "../core/protocol/admin.ts";
import type { ClusterState, InstanceLoad } from "../core/protocol/monitoring.ts";
import {
  counter,
  gauge,
  histogram,
  type Labels,
  type MetricFamily,
  type Sample,
} from "./family.ts";

/**
 * The metrics of all instances and of the manager.
 * @param model the name that clients use
 */
export function clusterFamilies(
  { instances, expectedInstances, statistics }: ClusterState,
  model: string,
): MetricFamily[] {
  return [
    ...instanceFamilies(instances, model),
    gauge("llumnix:expected_instances", "Instances that there should be.", [
      { labels: {}, value: expectedInstances },
    ]),
    ...dispatchFamilies(statistics),
    ...migrationFamilies(statistics),
    counter("llumnix:resumed_requests_total", "Requests that were resumed after their loss.", [
      { labels: {}, value: statistics.resumedRequests },
    ]),
    counter("llumnix:scaled_instances_total", "Instances that scaling added or removed.", [
      { labels: { direction: "up" }, value: statistics.scaling.up },
      { labels: { direction: "down" }, value: statistics.scaling.down },
    ]),
    counter("llumnix:instance_changes_total", "Instances that came and went, by what happened.", [
      { labels: { change: "started" }, value: statistics.instances.started },
      { labels: { change: "stopped" }, value: statistics.instances.stopped },
      { labels: { change: "lost" }, value: statistics.instances.lost },
      { labels: { change: "start_failed" }, value: statistics.instances.startFailed },
    ]),
  ];
}

/** The metrics of some instances. */
function instanceFamilies(instances: readonly InstanceLoad[], model: string): MetricFamily[] {
  const each = <T>(of: (instance: InstanceLoad) => T, more: Labels = {}): Sample<T>[] =>
    instances.map((instance) => ({
      labels: { model_name: model, instance_id: instance.instanceId, ...more },
      value: of(instance),
    }));
  return [
    gauge(
      "vllm:num_requests_running",
      "Requests that run on an instance.",
      each((one) => one.runningRequests),
    ),
    gauge(
      "vllm:num_requests_waiting",
      "Requests that wait in an instance's queue.",
      each((one) => one.waitingRequests),
    ),
    gauge(
      "vllm:gpu_cache_usage_perc",
      "Part of an instance's KV blocks that is in use; 1 is all of them.",
      each(cacheUsage),
    ),
    gauge(
      "vllm:kv_cache_usage_perc",
      "The same as vllm:gpu_cache_usage_perc, by its newer name.",
      each(cacheUsage),
    ),
    counter(
      "vllm:num_preemptions_total",
      "Preemptions of running requests, for lack of blocks.",
      each((one) => one.totals?.preemptions ?? null),
    ),
    counter(
      "llumnix:instance_prompt_tokens_total",
      "Prompt tokens that an instance computed, also those of resumed and preempted requests.",
      each((one) => one.totals?.promptTokens ?? null),
    ),
    counter(
      "llumnix:instance_generation_tokens_total",
      "Output tokens that an instance computed.",
      each((one) => one.totals?.outputTokens ?? null),
    ),
    gauge(
      "llumnix:instance_preempted_requests",
      "Requests that were preempted and do not run again yet.",
      each((one) => one.killedRequests),
    ),
    gauge(
      "llumnix:instance_high_priority_requests",
      "Running requests of high priority.",
      each((one) => one.runningHighPriorityRequests),
    ),
    gauge(
      "llumnix:instance_pending_requests",
      "Requests that were dispatched to an instance and that it has not reported yet.",
      each((one) => one.pendingRequests),
    ),
    gauge(
      "llumnix:instance_first_waiting_seconds",
      "How long the first request of an instance's queue has waited.",
      each(({ firstWaitingMs }) => firstWaitingMs === null ? null : firstWaitingMs / 1000),
    ),
    gauge(
      "llumnix:instance_step_seconds",
      "Time of an instance's last step.",
      each(({ lastStepMs }) => lastStepMs === null ? null : lastStepMs / 1000),
    ),
    gauge("llumnix:instance_load", "Load by --load-metric; missing while it is infinite.", [
      ...each(({ load }) => finite(load), { kind: "dispatch" }),
      ...each(({ migrationLoad }) => finite(migrationLoad), { kind: "migration" }),
    ]),
    gauge(
      "llumnix:instance_freeness",
      "Decode steps for which an instance's free blocks last; missing while it has no requests.",
      each(({ freeness }) => finite(freeness)),
    ),
    gauge(
      "llumnix:instance_total_blocks",
      "KV blocks of an instance.",
      each((one) => one.totalBlocks),
    ),
    gauge(
      "llumnix:instance_used_blocks",
      "KV blocks of an instance that are in use.",
      each((one) => one.usedBlocks),
    ),
    counter(
      "llumnix:dispatched_requests_total",
      "Requests that were dispatched to an instance.",
      each((one) => one.dispatchedRequests),
    ),
    gauge(
      "llumnix:instance_info",
      "Always 1; the labels say what an instance is, and in which state.",
      instances.map(({ instanceId, instanceType, state, executor, backend }) => ({
        labels: {
          model_name: model,
          instance_id: instanceId,
          instance_type: instanceType,
          state,
          executor: executor ?? "",
          migration_backend: backend ?? "",
        },
        value: 1,
      })),
    ),
  ];
}

function dispatchFamilies(statistics: ClusterState["statistics"]): MetricFamily[] {
  const { dispatches, dispatchSeconds } = statistics;
  return [
    counter(
      "llumnix:dispatches_total",
      "Dispatch decisions; refused: no instance takes requests.",
      [
        { labels: { result: "placed" }, value: dispatches.placed },
        { labels: { result: "refused" }, value: dispatches.refused },
      ],
    ),
    histogram("llumnix:dispatch_decision_seconds", "Time that a dispatch decision took.", [
      { labels: {}, value: dispatchSeconds },
    ]),
  ];
}

function migrationFamilies({ migrations, moves }: ClusterState["statistics"]): MetricFamily[] {
  const each = <T>(of: (move: typeof moves[number]) => T): Sample<T>[] =>
    moves.map((move) => ({ labels: { backend: move.backend }, value: of(move) }));
  return [
    counter(
      "llumnix:migrations_total",
      "Migrations that ended, by the phase in which they did; nothing: no request could move.",
      migrations.map(({ backend, outcome, phase, count }) => ({
        labels: { backend, outcome, phase },
        value: count,
      })),
    ),
    histogram(
      "llumnix:migration_downtime_seconds",
      "Time for which a request that moved did not run.",
      each((move) => move.downtimeSeconds),
    ),
    histogram(
      "llumnix:migration_duration_seconds",
      "Time from a migration's first message to its last.",
      each((move) => move.totalSeconds),
    ),
    histogram(
      "llumnix:migration_bytes_per_second",
      "Speed at which the backend copied the blocks of a request.",
      each((move) => move.bytesPerSecond),
    ),
    counter(
      "llumnix:migrated_bytes_total",
      "Bytes of KV cache that were copied for requests that moved.",
      each((move) => move.bytes),
    ),
    counter(
      "llumnix:migrated_blocks_total",
      "KV blocks of requests that moved.",
      each((move) => move.blocks),
    ),
    counter(
      "llumnix:migrated_tokens_total",
      "Tokens of requests that moved.",
      each((move) => move.tokens),
    ),
    counter(
      "llumnix:migration_transfer_seconds_total",
      "Time in which the backend copied.",
      each((move) => move.transferSeconds),
    ),
  ];
}

function cacheUsage({ usedBlocks, totalBlocks }: InstanceLoad): number | null {
  return usedBlocks === null || !totalBlocks ? null : usedBlocks / totalBlocks;
}

/** An infinite value would spoil every sum and mean that it is part of. */
function finite(load: LoadNumber | null): number | null {
  return typeof load === "number" ? load : null;
}
