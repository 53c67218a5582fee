import type { ClusterEvent, MigrationEnded } from "../../core/protocol/monitoring.ts";
import type { ManagerEvent } from "../manager_event.ts";

/** What watchers of the cluster learn of an event of the manager; null: nothing. */
export function clusterEventOf(event: ManagerEvent): ClusterEvent | null {
  switch (event.type) {
    case "dispatched":
    case "ended":
    case "preempted":
    case "resumed":
    case "migration_started":
      return event;
    case "migrated":
      return endedBy(event);
    case "migration_unanswered":
      return endedWithoutRequest(event, "unanswered");
    case "nothing_moved":
      return endedWithoutRequest(event, "nothing");
    case "launched":
      return { type: "instance_starting", instanceId: event.instanceId };
    case "registered":
      return { type: "instance_ready", instanceId: event.registration.instanceId };
    case "draining":
      return { type: "instance_draining", instanceId: event.instanceId };
    case "kept":
      return { type: "instance_kept", instanceId: event.instanceId };
    case "stopped":
      return { type: "instance_stopped", instanceId: event.instanceId };
    case "lost":
      return { type: "instance_lost", instanceId: event.instanceId, reason: event.reason };
    case "start_failed":
      return { type: "start_failed", reason: event.reason };
    case "scaling":
      return { type: "scaled", change: event.change };
    default:
      return null;
  }
}

function endedBy(
  { report, backend }: ManagerEvent & { readonly type: "migrated" },
): MigrationEnded {
  const { migrationId, sourceId, destinationId, requestId, outcome, phase, reason } = report;
  const { lengthTokens, stages, blocks, transfer } = report;
  return {
    type: "migration_ended",
    migrationId,
    sourceId,
    destinationId,
    backend,
    requestId,
    outcome,
    phase,
    reason,
    lengthTokens,
    stages,
    blocks,
    bytes: transfer.bytes,
    transferMs: Math.max(0, transfer.transferMs),
    downtimeMs: Math.max(0, report.downtimeMs),
    totalMs: Math.max(0, report.totalMs),
  };
}

/** Of a migration without an answer it is not known how far it came: perhaps not far. */
function endedWithoutRequest(
  { migrationId, sourceId, destinationId, backend, reason }: ManagerEvent & {
    readonly type: "migration_unanswered" | "nothing_moved";
  },
  outcome: "unanswered" | "nothing",
): MigrationEnded {
  return {
    type: "migration_ended",
    migrationId,
    sourceId,
    destinationId,
    backend,
    requestId: null,
    outcome,
    phase: "choice",
    reason,
    lengthTokens: 0,
    stages: 0,
    blocks: 0,
    bytes: 0,
    transferMs: 0,
    downtimeMs: 0,
    totalMs: 0,
  };
}
