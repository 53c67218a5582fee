/** Live migration: orders of the manager, and the steps between the source and the destination. */
import type { GenerateRequest, InstanceId, RequestId } from "./generate.ts";
import type { ManagerDecision } from "./leadership.ts";
import type { MigrationRegistration } from "./membership.ts";

/**
 * Manager to instance, call `migration_group`, for backends whose instances form a group: leave the
 * former group and join this one. Answered by {@linkcode MigrationGroupReply}.
 */
export interface MigrationGroup extends ManagerDecision {
  /** What members know each other by. */
  readonly secret: string;
  /** Grows whenever members come or go. */
  readonly generation: number;
  /** By rank. */
  readonly members: readonly MigrationGroupMember[];
}

export interface MigrationGroupMember {
  readonly instanceId: InstanceId;
  readonly rank: number;
  readonly endpoint: MigrationRegistration["endpoint"];
}

export interface MigrationGroupReply {
  readonly failedPeers: readonly FailedPeer[];
}

/** A member of a group that another could not connect to. */
export interface FailedPeer {
  readonly instanceId: InstanceId;
  readonly reason: string;
}

export type MigrationId = string;

/** Which request leaves an instance (src/instance/llumlet/README.md, "Which request moves"). */
export type RequestMigrationPolicy = "LCR" | "SR" | "LR" | "FCW" | "FCWSR" | "FIT";

/** What an instance can take, by its last report. */
export interface DestinationRoom {
  readonly blocks: number;
  /** Arrival of the first waiting request; only an older one may move here. Null if none waits. */
  readonly firstArrivalMs: number | null;
}

/**
 * What an order of pair migration policy `waiting_first` is for: one that waits goes where it fits
 * (`waiting`), one that runs makes room for the head of the queue (`room`), the shortest that runs
 * leaves before one is preempted (`shortest`).
 */
export type MigrationAim = "waiting" | "room" | "shortest";

/** An instance that blocks can be sent to. */
export interface MigrationDestination {
  readonly instanceId: InstanceId;
  /** Bus address at which it serves. */
  readonly address: string;
  /** Name of its host, if that is not the source's host; absent: it is, or it is not known. */
  readonly hostName?: string;
}

/** Manager to source instance, call `migrate_out`; answered by a {@linkcode MigrationReport}. */
export interface MigrateOutOrder extends ManagerDecision {
  readonly migrationId: MigrationId;
  readonly destination: MigrationDestination;
  readonly policy: RequestMigrationPolicy;
  /** Of the destination; policy `FIT` chooses by it. */
  readonly room?: DestinationRoom;
  /** Policy `FIT` chooses only for this aim; by default for the aim that the source needs most. */
  readonly aim?: MigrationAim;
  /** Most requests that leave by this order; default all that have run their expected steps. */
  readonly maxRequests?: number;
  /**
   * Without an aim this request leaves, and the policy has no say. With aim `waiting` policy `FIT`
   * chooses this request or none: the request may run by now, or not fit any more.
   */
  readonly requestId?: RequestId;
  /**
   * The source drains, or requests wait there for the room: its requests leave as fast as they can,
   * even if the steps of other requests take longer.
   */
  readonly isUrgent?: boolean;
}

/**
 * `committed`: the destination owns the request. `nothing`: no request could leave. `finished`: it ended
 * at the source in the meantime. `aborted_source`, `aborted_destination`: it stays at the source, because
 * of that side; `reason` says why.
 */
export type MigrationOutcome =
  | "committed"
  | "nothing"
  | "finished"
  | "aborted_source"
  | "aborted_destination";

/**
 * `choice`: the source looks for a request to move. `opening`: it asks the destination. `copying`: blocks
 * are copied while the request decodes. `last_stage`: the request is suspended, and the rest is copied.
 * `commit`: the destination is to own the request.
 */
export type MigrationPhase = "choice" | "opening" | "copying" | "last_stage" | "commit";

/** How a migration went. */
export interface MigrationReport {
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  readonly destinationId: InstanceId;
  /** Null with `nothing`. */
  readonly requestId: RequestId | null;
  readonly outcome: MigrationOutcome;
  /** The phase in which it ended. */
  readonly phase: MigrationPhase;
  readonly reason: string;
  /** Tokens of the request when it left. */
  readonly lengthTokens: number;
  readonly stages: number;
  readonly blocks: number;
  readonly transfer: TransferStatistics;
  /** It left its KV cache behind: the destination computes that again. */
  readonly isRecomputed?: boolean;
  /** From leaving the source's running queue until it was running at the destination. */
  readonly downtimeMs: number;
  readonly totalMs: number;
  /** Committed: when it left, by the clock of the source's {@linkcode InstanceInfo}. */
  readonly leftMs?: number;
  /** Migrations of the same order that were committed before this one. */
  readonly earlier?: readonly MigrationReport[];
}

/** What a migration backend did. */
export interface TransferStatistics {
  readonly bytes: number;
  /** Contiguous runs that were copied. */
  readonly descriptors: number;
  /** Rounds of at most `--migration-buffer-blocks` blocks and `--migration-num-layers` layers. */
  readonly rounds: number;
  readonly transferMs: number;
}

/** Source to destination instance, call `migrate_in`: may this request come? Opens the migration. */
export interface MigrateInRequest {
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  readonly requestId: RequestId;
  readonly arrivalMs: number;
  readonly lengthTokens: number;
  /** A waiting request has no blocks; it takes its place in the destination's queue. */
  readonly isWaiting: boolean;
  readonly model: string;
  /** Name of the migration backend; it must equal the destination's. */
  readonly backend: string;
  /** A `KvLayout`; it must equal the destination's. */
  readonly layout: Readonly<Record<string, string | number>>;
}

/** Answer to `migrate_in`: how the source's backend reaches the destination's pool. */
export interface MigrateInReply {
  readonly endpoint: Readonly<Record<string, unknown>>;
}

/** Source to destination, call `migrate_reserve`: take `blocks` more blocks for this migration. */
export interface MigrateReserveRequest {
  readonly migrationId: MigrationId;
  /** 0 for the first. A repeated stage is answered as before. */
  readonly stage: number;
  readonly blocks: number;
  /** So many are likely to follow: their memory can be made ready. Absent: none. */
  readonly nextBlocks?: number;
}

export interface MigrateReserveReply {
  /** In the order of the request's block table. */
  readonly blocks: readonly number[];
}

/**
 * Source to destination, call `migrate_commit`: the request is yours. Answered the same however often
 * it is repeated; refused when the migration was cancelled or is not known.
 */
export interface MigrateCommitRequest {
  readonly migrationId: MigrationId;
  /** With all output so far, and the new epoch. */
  readonly request: GenerateRequest;
}

/**
 * Source to destination, call `migrate_settle` after a commit without an answer: says whether the
 * destination owns the request. After `cancelled` a commit that is still under way is refused.
 */
export interface MigrateSettleReply {
  readonly state: "committed" | "cancelled";
}

/** Source to destination, call `migrate_settle`, and notification `migrate_cancel`: which migration. */
export interface MigrationName {
  readonly migrationId: MigrationId;
}

/**
 * Instance to instance, call `migrate_backend`: what the migration backend of one says to that of the
 * other, which is of the same kind and checks the data itself. The answer is data of that kind too.
 */
export interface BackendCall {
  /** What the call is about, in the words of the backend. */
  readonly topic: string;
  readonly data: unknown;
}

/**
 * Source to destination, call `migrate_blocks` of backend `rayrpc`: some layers of some blocks, whose bytes
 * are the payload, one block after the other.
 */
export interface BlockRound {
  readonly migrationId: MigrationId;
  /** Of the destination's pool. */
  readonly blocks: readonly number[];
  readonly firstLayer: number;
  readonly numLayers: number;
}

/**
 * Source to destination, call `migrate_pull` of backend `kvtransfer`: read these blocks out of my pool.
 * Answered when they are in place.
 */
export interface BlockPull {
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  /** Of the source's entry in the naming directory. */
  readonly generation: string;
  readonly sourceBlocks: readonly number[];
  /** As many: `sourceBlocks[i]` goes to `destinationBlocks[i]`. */
  readonly destinationBlocks: readonly number[];
  /** Nothing is written after it. */
  readonly timeoutMs: number;
  /** The request still decodes at the source: leave the cores to running steps. */
  readonly isBackground: boolean;
}
