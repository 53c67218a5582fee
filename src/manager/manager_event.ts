import type { AgentJoin } from "../core/protocol/agents.ts";
import type { InstanceId, Priority, RequestId } from "../core/protocol/generate.ts";
import type { InstanceProgress, InstanceRegistration } from "../core/protocol/membership.ts";
import type { FailedPeer, MigrationId, MigrationReport } from "../core/protocol/migration.ts";

/** What happens in a manager, for people: the command line logs it. */
export type ManagerEvent =
  | {
    readonly type: "launched";
    readonly instanceId: InstanceId;
    readonly pid: number;
    /** Absent: the manager's own host. */
    readonly host?: string;
  }
  /** The agent of a host has joined: instances can be started there. */
  | { readonly type: "host_joined"; readonly facts: AgentJoin }
  /** The agent of a host is gone. Unless it has stopped, its instances go on while their processes do. */
  | { readonly type: "host_left"; readonly host: string; readonly hasStopped: boolean }
  | { readonly type: "progress"; readonly progress: InstanceProgress }
  | { readonly type: "registered"; readonly registration: InstanceRegistration }
  /** An instance serves at an address at which the manager's host does not reach it. */
  | {
    readonly type: "unreachable";
    readonly instanceId: InstanceId;
    readonly address: string;
    readonly reason: string;
  }
  /** An instance serves something else than the others, and may not join. */
  | { readonly type: "refused"; readonly instanceId: InstanceId; readonly reason: string }
  /** An instance ended unexpectedly, or was given up. */
  | { readonly type: "lost"; readonly instanceId: InstanceId; readonly reason: string }
  /** An instance of a previous manager never joined this one, and was killed. */
  | { readonly type: "orphan_killed"; readonly instanceId: InstanceId }
  /** A new instance did not get to serve. `retryMs` null: no other start follows. */
  | { readonly type: "start_failed"; readonly reason: string; readonly retryMs: number | null }
  /** No instance serves, and no more starts are tried. */
  | { readonly type: "given_up"; readonly reason: string }
  /** The process of an instance was asked to stop, by a signal: it drains first. */
  | { readonly type: "stop_requested"; readonly instanceId: InstanceId }
  /** An instance was asked to stop, and did. */
  | { readonly type: "stopped"; readonly instanceId: InstanceId }
  /** An instance takes no more requests, and its requests move away. */
  | { readonly type: "draining"; readonly instanceId: InstanceId }
  /** Scaling adds this many instances, or removes them if negative. */
  | { readonly type: "scaling"; readonly change: number }
  /** The drain of an instance ended: it takes requests again. */
  | { readonly type: "kept"; readonly instanceId: InstanceId }
  | {
    readonly type: "dispatched";
    readonly requestId: RequestId;
    readonly instanceId: InstanceId;
    readonly priority: Priority;
    readonly promptTokens: number;
  }
  /** A request ended at an instance: it finished, failed or was aborted. */
  | { readonly type: "ended"; readonly requestId: RequestId; readonly instanceId: InstanceId }
  /** An instance preempted running requests, for lack of blocks. */
  | { readonly type: "preempted"; readonly instanceId: InstanceId; readonly count: number }
  /** An API server resumes a request that was lost with its instance. */
  | { readonly type: "resumed"; readonly requestId: RequestId; readonly reason: string }
  | {
    readonly type: "migration_started";
    readonly migrationId: MigrationId;
    readonly sourceId: InstanceId;
    readonly destinationId: InstanceId;
    readonly backend: string;
  }
  /** A migration was ordered, and the source had no request to move. */
  | {
    readonly type: "nothing_moved";
    readonly migrationId: MigrationId;
    readonly sourceId: InstanceId;
    readonly destinationId: InstanceId;
    readonly backend: string;
    readonly reason: string;
  }
  /** A migration ended, with any other outcome. */
  | { readonly type: "migrated"; readonly report: MigrationReport; readonly backend: string }
  /** A generation of the migration group is set up: who exchanges blocks, and who cannot for now. */
  | {
    readonly type: "group_formed";
    readonly generation: number;
    readonly members: readonly InstanceId[];
    readonly leftOut: readonly FailedPeer[];
  }
  /** An instance serves, but cannot take part in migration. */
  | { readonly type: "not_migrating"; readonly instanceId: InstanceId; readonly reason: string }
  /** The source of a migration did not report. */
  | {
    readonly type: "migration_unanswered";
    readonly migrationId: MigrationId;
    readonly sourceId: InstanceId;
    readonly destinationId: InstanceId;
    readonly backend: string;
    readonly reason: string;
  };
