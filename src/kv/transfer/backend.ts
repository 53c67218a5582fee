/**
 * Moves KV blocks from one instance's pool to another's. The migration protocol decides what moves
 * and when; a backend knows nothing of requests. Every implementation passes the suite in
 * `test/conformance/migration_backend.ts`.
 */
import type { InstanceId, MigrationId, TransferStatistics } from "../../core/messages.ts";

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
  readonly destinationId: InstanceId;
  readonly endpoint: BackendEndpoint;
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  /** Of the sender's clock. Nothing is written after it: the destination's lease on the blocks. */
  readonly deadlineMs: number;
}

/**
 * One instance's end. The caller keeps source blocks from changing and both sides' blocks from being
 * reused until `send` has settled, at the destination also until the deadline of the migration.
 */
export interface MigrationBackend {
  /** As in `--migration-backend`. */
  readonly name: string;
  /** False until it can take part, for backends that need a group. */
  readonly isReady: boolean;
  /** Given to the source of a migration that comes here. */
  readonly endpoint: BackendEndpoint;
  /**
   * Copies blocks; resolves when they are in place at the destination. After an abort it settles
   * soon, and nothing more is written once it has.
   * @throws {UnavailableError} the destination cannot be reached, `signal` was aborted, the deadline
   *   has passed
   */
  send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics>;
  close(): Promise<void>;
}
