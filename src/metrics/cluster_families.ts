import type { ClusterState } from "../core/protocol/monitoring.ts";
import { counter, gauge, histogram, type MetricFamily, type Sample } from "./family.ts";
import { instanceFamilies } from "./instance_families.ts";

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
