import type { ClusterState } from "../core/protocol/monitoring.ts";
import { counter, gauge, histogram, type MetricFamily, type Sample } from "./family.ts";
import { instanceFamilies } from "./instance_families.ts";

/**
 * The metrics of all instances and of the manager.
 * @param model the name that clients use
 */
export function clusterFamilies(
  { instances, expectedInstances, hosts, leadership, statistics }: ClusterState,
  model: string,
): MetricFamily[] {
  return [
    ...instanceFamilies(instances, model),
    gauge("llumnix:expected_instances", "Instances that there should be.", [
      { labels: {}, value: expectedInstances },
    ]),
    ...hostFamilies(hosts),
    ...leadership === undefined ? [] : leadershipFamilies(leadership),
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

function hostFamilies(hosts: ClusterState["hosts"]): MetricFamily[] {
  const each = (of: (host: typeof hosts[number]) => number): Sample<number>[] =>
    hosts.map((host) => ({ labels: { host: host.hostName }, value: of(host) }));
  return [
    gauge(
      "llumnix:host_instances",
      "Instances of a host that have not ended.",
      each((host) => host.instances),
    ),
    gauge(
      "llumnix:host_available_instances",
      "Instances of a host that take requests.",
      each((host) => host.availableInstances),
    ),
    gauge(
      "llumnix:host_drained",
      "1: an operator drains the host; 0: it serves.",
      each((host) => host.state === "serving" ? 0 : 1),
    ),
  ];
}

/** Of several managers; a manager that is alone shows none of these. */
function leadershipFamilies(
  { isLeader, epoch, storeProblem }: NonNullable<ClusterState["leadership"]>,
): MetricFamily[] {
  return [
    gauge("llumnix:leader", "1: this manager leads; 0: another one does.", [
      { labels: {}, value: isLeader ? 1 : 0 },
    ]),
    gauge(
      "llumnix:epoch",
      "Epoch of the leader, as this manager knows it; 0: no leader is known.",
      [
        { labels: {}, value: epoch },
      ],
    ),
    gauge("llumnix:lease_store_up", "1: the lease store answers this manager; 0: it does not.", [
      { labels: {}, value: storeProblem === null ? 1 : 0 },
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
