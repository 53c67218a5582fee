/**
 * Moves KV blocks from one instance's pool to another's. The migration protocol decides what moves
 * and when; a backend knows nothing of requests. Every implementation passes the suite in
 * `test/conformance/migration_backend.ts`.
 */
import type { MigrationCallName, ReplyOf, RequestOf } from "../../core/protocol/calls.ts";
import type {
  FailedPeer,
  MigrationDestination,
  MigrationGroup,
  MigrationId,
  TransferStatistics,
} from "../../core/protocol/migration.ts";

/** How other instances reach a backend's pool: JSON data that only backends of the same name read. */
export type BackendEndpoint = Readonly<Record<string, unknown>>;

/** Bounds on one round of a transfer (`--migration-buffer-blocks`, `--migration-num-layers`). */
export interface TransferLimits {
  /** Most blocks of one round. */
  readonly bufferBlocks: number;
  /** Most layers of one round. */
  readonly numLayers: number;
}

/** The blocks of one stage of a migration: `sourceBlocks[i]` is copied to `destinationBlocks[i]`. */
export interface BlockTransfer {
  readonly migrationId: MigrationId;
  readonly destination: MigrationDestination;
  readonly endpoint: BackendEndpoint;
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  /** On the sender's clock. Nothing is sent after it. */
  readonly deadlineMs: number;
  /** The request still decodes at the source: leave the cores to running steps (see `pace.ts`). */
  readonly isBackground?: boolean;
}

/** A message of the bus: see `Message` in `src/bus/bus.ts`, which this room does not import. */
export interface BackendMessage<Data = unknown> {
  readonly data: Data;
  readonly payload?: Uint8Array<ArrayBuffer>;
  /** The sender no longer uses the payload's buffer, so it need not be copied. */
  readonly isPayloadGiven?: boolean;
  /** See `Message` of the bus: takes back the payload of a received message. */
  readonly giveBack?: () => void;
}

/**
 * One instance's end. As a source it reads blocks; the caller neither changes nor reuses them until
 * `send` has settled. As a destination it lets a migration write the blocks granted to the migration,
 * from `grant` until `revoke`, and no others: not those that a source wrongly believes to be granted,
 * and not after a revocation, however late the bytes arrive.
 */
export interface MigrationBackend {
  /** As in `--migration-backend`. */
  readonly name: string;
  /** Whether it can send. A backend that needs a group is ready once it has joined one. */
  readonly isReady: boolean;
  /** Resolves with the reason when the backend has failed for good. Never rejects. */
  readonly failed?: Promise<string>;
  /** Where a server of its own listens, for the log. */
  readonly servesAt?: string;
  /** The source of a migration to this instance is given it. */
  readonly endpoint: BackendEndpoint;
  /**
   * Joins a group and leaves the group before, for backends that need one.
   * @returns the members to which no connection could be made
   */
  join?(group: MigrationGroup): Promise<readonly FailedPeer[]>;
  /** Calls that other instances make over the bus of the control plane, for backends that use it. */
  readonly calls?: {
    readonly [M in MigrationCallName]?: (
      message: BackendMessage<RequestOf<M>>,
    ) => BackendMessage<ReplyOf<M>> | Promise<BackendMessage<ReplyOf<M>>>;
  };
  /**
   * As a destination: lets a migration write these blocks too. Resolves when writes are accepted.
   * @throws {RangeError} the pool has no such block
   */
  grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void>;
  /**
   * As a destination: makes memory resident for blocks that may be granted soon, where the first write
   * would wait for it.
   */
  prepare?(blocks: readonly number[]): void;
  /**
   * As a destination: the migration may write nothing any more; later writes are refused. Resolves when
   * no write is under way: then the blocks may be used again. An unknown id has nothing to revoke.
   * Never rejects.
   */
  revoke(migrationId: MigrationId): Promise<void>;
  /**
   * As a source: copies blocks. Resolves when they are in place at the destination. After an abort it
   * settles soon, and reads nothing afterwards; bytes that are under way may still be written at the
   * destination until it revokes.
   * @throws {UnavailableError} the destination cannot be reached or refuses, `signal` was aborted, or
   *   the deadline has passed
   */
  send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics>;
  /** Resolves when the backend no longer reads or writes the pool. */
  close(): Promise<void>;
}
