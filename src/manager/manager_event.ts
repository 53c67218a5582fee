import type { InstanceId, RequestId } from "../core/protocol/generate.ts";
import type { InstanceProgress, InstanceRegistration } from "../core/protocol/membership.ts";
import type { FailedPeer, MigrationId, MigrationReport } from "../core/protocol/migration.ts";

/** What happens, for people: the command line prints it. */
export type ManagerEvent =
  | { readonly type: "launched"; readonly instanceId: InstanceId; readonly pid: number }
  | { readonly type: "progress"; readonly progress: InstanceProgress }
  | { readonly type: "registered"; readonly registration: InstanceRegistration }
  /** It serves something else than the others. */
  | { readonly type: "refused"; readonly instanceId: InstanceId; readonly reason: string }
  | { readonly type: "lost"; readonly instanceId: InstanceId; readonly reason: string }
  /** One of a manager before this one, which never joined this one. */
  | { readonly type: "orphan_killed"; readonly instanceId: InstanceId }
  /** One more instance was wanted; null: it is not tried again. */
  | { readonly type: "start_failed"; readonly reason: string; readonly retryMs: number | null }
  /** No instance serves, and none will. */
  | { readonly type: "given_up"; readonly reason: string }
  /** Its process was asked to stop: it drains first. */
  | { readonly type: "stop_requested"; readonly instanceId: InstanceId }
  /** It was asked to stop, and did. */
  | { readonly type: "stopped"; readonly instanceId: InstanceId }
  | { readonly type: "draining"; readonly instanceId: InstanceId }
  /** By load: so many instances more, or fewer. */
  | { readonly type: "scaling"; readonly change: number }
  /** It was to be stopped, and is needed after all. */
  | { readonly type: "kept"; readonly instanceId: InstanceId }
  | {
    readonly type: "dispatched";
    readonly requestId: RequestId;
    readonly instanceId: InstanceId;
  }
  /** However it went; those that found no request to move are not told. */
  | { readonly type: "migrated"; readonly report: MigrationReport }
  /** The instances that exchange blocks, and those that cannot for now. */
  | {
    readonly type: "group_formed";
    readonly generation: number;
    readonly members: readonly InstanceId[];
    readonly leftOut: readonly FailedPeer[];
  }
  /** It serves, and takes no part in migration: it is not as the others in what that needs. */
  | { readonly type: "not_migrating"; readonly instanceId: InstanceId; readonly reason: string }
  /** Its source did not report. */
  | {
    readonly type: "migration_unanswered";
    readonly migrationId: MigrationId;
    readonly sourceId: InstanceId;
    readonly destinationId: InstanceId;
    readonly reason: string;
  };
