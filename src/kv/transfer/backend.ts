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

/** How a backend's peers reach its pool; JSON data that only the same kind of backend reads. */
export type BackendEndpoint = Readonly<Record<string, unknown>>;

/** Bounds on what is in flight (`--migration-buffer-blocks`, `--migration-num-layers`). */
export interface TransferLimits {
  /** Blocks of one round. */
  readonly bufferBlocks: number;
  /** Layers of one round. */
  readonly numLayers: number;
}

/** One stage's blocks: `sourceBlocks[i]` is copied to `destinationBlocks[i]`. */
export interface BlockTransfer {
  readonly migrationId: MigrationId;
  readonly destination: MigrationDestination;
  readonly endpoint: BackendEndpoint;
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  /** Of the sender's clock. Nothing is sent after it. */
  readonly deadlineMs: number;
  /** Nobody waits for it: it is to take little from the steps that run meanwhile (see `pace.ts`). */
  readonly isBackground?: boolean;
}

/** A message of the bus, as far as a backend sees it. */
export interface BackendMessage<Data = unknown> {
  readonly data: Data;
  readonly payload?: Uint8Array<ArrayBuffer>;
  /** The sender uses the payload's buffer no more. */
  readonly isPayloadGiven?: boolean;
}

/**
 * One instance's end. As a source it reads blocks that the caller keeps from changing and from being
 * reused until `send` has settled. As a destination it lets a migration write the blocks granted to
 * it, from `grant` until `revoke`, and nothing else, whatever a source believes, and however late
 * what it sent arrives.
 */
export interface MigrationBackend {
  /** As in `--migration-backend`. */
  readonly name: string;
  /** False until it can take part, for backends that need a group. */
  readonly isReady: boolean;
  /** Resolves with the reason when it can never take part any more, for backends that may fail. */
  readonly failed?: Promise<string>;
  /** Given to the source of a migration that comes here. */
  readonly endpoint: BackendEndpoint;
  /**
   * Takes part in a group, in place of the one before, for backends that need one.
   * @returns the members that it could not connect to
   */
  join?(group: MigrationGroup): Promise<readonly FailedPeer[]>;
  /** What peers call over the bus of the control plane, for backends that use it. */
  readonly calls?: {
    readonly [M in MigrationCallName]?: (
      message: BackendMessage<RequestOf<M>>,
    ) => BackendMessage<ReplyOf<M>>;
  };
  /**
   * As a destination: lets a migration write these blocks, besides those that it may write already.
   * Resolves when writes are accepted.
   * @throws {RangeError} a block that is not there
   */
  grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void>;
  /**
   * As a destination: makes the memory of blocks ready that may be granted soon, where the first to
   * write it waits for that.
   */
  prepare?(blocks: readonly number[]): void;
  /**
   * As a destination: ends what a migration may write; a writer that comes later is refused. Resolves
   * when no write is under way any more: then the blocks may be used again. Ids that are not known
   * have nothing to end. Never rejects.
   */
  revoke(migrationId: MigrationId): Promise<void>;
  /**
   * As a source: copies blocks; resolves when they are in place at the destination. After an abort it
   * settles soon, and reads nothing once it has; what is under way may still be written until it is
   * revoked.
   * @throws {UnavailableError} the destination cannot be reached or refuses, `signal` was aborted,
   *   the deadline has passed
   */
  send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics>;
  /** Resolves when nothing reads or writes the pool any more. */
  close(): Promise<void>;
}
