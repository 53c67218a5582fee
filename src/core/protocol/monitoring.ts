/**
 * API server and manager: what happens in the cluster, for the page, metrics and other watchers. Nothing
 * here decides anything, and nothing is sent for each token.
 */
import type { Buckets } from "../stats/bucket_counts.ts";
import type { HostStatus, InstanceStatus, LoadNumber } from "./admin.ts";
import type { LeadershipStatus } from "./leadership.ts";
import type { InstanceId, Priority, RequestId } from "./generate.ts";
import type { InstanceTotals } from "./instance_info.ts";
import type { MigrationId, MigrationOutcome, MigrationPhase } from "./migration.ts";

/** `unanswered`: the source did not report how the migration went. */
export type MigrationEnd = MigrationOutcome | "unanswered";

/** What happened, once. */
export type ClusterEvent =
  /** The manager chose an instance for a request. */
  | {
    readonly type: "dispatched";
    readonly requestId: RequestId;
    readonly instanceId: InstanceId;
    readonly priority: Priority;
    readonly promptTokens: number;
  }
  /** A request ended at an instance: it finished, failed or was aborted. */
  | {
    readonly type: "ended";
    readonly requestId: RequestId;
    readonly instanceId: InstanceId;
  }
  /** An instance preempted running requests, for lack of blocks. */
  | { readonly type: "preempted"; readonly instanceId: InstanceId; readonly count: number }
  /** A request that was lost with its instance goes on elsewhere, after the tokens that were delivered. */
  | { readonly type: "resumed"; readonly requestId: RequestId; readonly reason: string }
  /** The manager ordered a migration. The source chooses the request, perhaps none. */
  | {
    readonly type: "migration_started";
    readonly migrationId: MigrationId;
    readonly sourceId: InstanceId;
    readonly destinationId: InstanceId;
    readonly backend: string;
  }
  | MigrationEnded
  /** An instance was launched, and loads. */
  | { readonly type: "instance_starting"; readonly instanceId: InstanceId }
  /** An instance serves, or serves again after its connection was lost. */
  | { readonly type: "instance_ready"; readonly instanceId: InstanceId }
  /** An instance takes no more requests, and its requests move away. */
  | { readonly type: "instance_draining"; readonly instanceId: InstanceId }
  /** A drain ended before the instance stopped: it takes requests again. */
  | { readonly type: "instance_kept"; readonly instanceId: InstanceId }
  /** An instance ended because it was asked to. */
  | { readonly type: "instance_stopped"; readonly instanceId: InstanceId }
  /** An instance ended unexpectedly, or was given up. */
  | { readonly type: "instance_lost"; readonly instanceId: InstanceId; readonly reason: string }
  /** An instance ended before it served. */
  | { readonly type: "start_failed"; readonly reason: string }
  /** Scaling adds this many instances, or removes them if negative. */
  | { readonly type: "scaled"; readonly change: number };

/**
 * A migration ended. An order that moved several requests has one such event for each; all but the first
 * have the id of the order and a number behind it.
 */
export interface MigrationEnded {
  readonly type: "migration_ended";
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  readonly destinationId: InstanceId;
  /** As in `--migration-backend`, or `in_process` between instances of one process. */
  readonly backend: string;
  /** Null if no request could move, or the source did not report. */
  readonly requestId: RequestId | null;
  readonly outcome: MigrationEnd;
  /** The phase in which the migration ended. */
  readonly phase: MigrationPhase;
  /** Why the request did not move; empty if it moved. */
  readonly reason: string;
  /** Prompt and output of the request when it left. */
  readonly lengthTokens: number;
  readonly stages: number;
  readonly blocks: number;
  readonly bytes: number;
  /** Time in which the backend copied. */
  readonly transferMs: number;
  /** See `MigrationReport`. */
  readonly downtimeMs: number;
  readonly totalMs: number;
}

export type NumberedEvent = ClusterEvent & {
  /** Counts a manager's events, from 1. */
  readonly sequence: number;
  /** Milliseconds since the epoch, by the manager's clock. */
  readonly atMs: number;
};

/** Events that the manager keeps; older ones are dropped. */
export const MAX_KEPT_EVENTS = 4_096;
/** Most events of one reply. */
export const MAX_EVENTS_PER_REPLY = 512;

/** API server to manager, call `cluster_events`: what happened after this event? */
export interface EventsQuery {
  /** 0: from the oldest event that is kept. Null: nothing, only the number of the last event. */
  readonly after: number | null;
  /**
   * {@linkcode EventsReply.managerStartedMs} of the reply before. If another manager answers, it counts
   * anew, and begins with its oldest event. Absent: this is the first query.
   */
  readonly managerStartedMs?: number;
}

export interface EventsReply {
  /** Tells managers apart: one that starts again counts its events from 1. */
  readonly managerStartedMs: number;
  /** Oldest first, at most {@linkcode MAX_EVENTS_PER_REPLY}. */
  readonly events: readonly NumberedEvent[];
  /** `after` of the next query. */
  readonly next: number;
  /** How many events the manager dropped that came after the one asked for. */
  readonly numDropped: number;
  /** More events can be had at once. */
  readonly hasMore: boolean;
}

/** API server to manager, call `cluster_state` without data. */
export interface ClusterState {
  readonly managerStartedMs: number;
  readonly timestampMs: number;
  /** All instances, starting and draining ones too, in the order in which they came. */
  readonly instances: readonly InstanceLoad[];
  readonly expectedInstances: number;
  /** Hosts that have instances or an agent, or are drained, by name. */
  readonly hosts: readonly HostStatus[];
  /** Absent: there is one manager. */
  readonly leadership?: LeadershipStatus;
  readonly statistics: ClusterStatistics;
}

/** An instance by its last report. Null: it has not reported yet. */
export interface InstanceLoad extends InstanceStatus {
  readonly blockSize: number | null;
  /** Name of its migration backend; null: its requests stay where they are. */
  readonly backend: string | null;
  readonly executor: string | null;
  readonly migrationLoad: LoadNumber | null;
  /** Decode steps for which its free blocks last; see src/manager/README.md, "Load". */
  readonly freeness: LoadNumber | null;
  readonly runningHighPriorityRequests: number | null;
  /** Dispatched to it, and not in a report yet. */
  readonly pendingRequests: number;
  /** Requests that the manager has dispatched to it. */
  readonly dispatchedRequests: number;
  /** How long the first waiting request has waited; 0 if none waits. */
  readonly firstWaitingMs: number | null;
  readonly lastStepKind: "prefill" | "decode" | "idle" | null;
  readonly lastStepMs: number | null;
  readonly totals: InstanceTotals | null;
}

/** What happened since the manager was started. */
export interface ClusterStatistics {
  /** By what became of the request: a place, or none because no instance takes requests. */
  readonly dispatches: { readonly placed: number; readonly refused: number };
  /** Time that the decision took, in seconds. */
  readonly dispatchSeconds: Buckets;
  readonly migrations: readonly MigrationCount[];
  /** Of committed migrations. */
  readonly moves: readonly BackendMoves[];
  readonly scaling: { readonly up: number; readonly down: number };
  readonly instances: {
    readonly started: number;
    readonly stopped: number;
    readonly lost: number;
    readonly startFailed: number;
  };
  /** Requests that API servers resumed, and said so. */
  readonly resumedRequests: number;
}

export interface MigrationCount {
  readonly backend: string;
  readonly outcome: MigrationEnd;
  readonly phase: MigrationPhase;
  readonly count: number;
}

/** What the committed migrations of one backend amount to. */
export interface BackendMoves {
  readonly backend: string;
  readonly tokens: number;
  readonly blocks: number;
  readonly bytes: number;
  readonly transferSeconds: number;
  readonly downtimeSeconds: Buckets;
  readonly totalSeconds: Buckets;
  /** Of each migration that copied anything. */
  readonly bytesPerSecond: Buckets;
}

/** API server to manager, notification `resumed`: a lost request goes on elsewhere. */
export interface ResumeNotice {
  readonly requestId: RequestId;
  readonly reason: string;
}
