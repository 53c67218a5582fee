import type { Clock } from "../../../core/clock.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { MigrationId, TransferStatistics } from "../../../core/protocol/migration.ts";
import { layerBytes, layoutDifference } from "../../layout.ts";
import type { MappedPool } from "../../pool/pool.ts";
import type {
  BackendEndpoint,
  BlockTransfer,
  MigrationBackend,
  TransferLimits,
} from "../backend.ts";
import { type BlockRun, type TransferRound, transferRounds } from "../rounds.ts";
import { checkLists, checkStillWanted } from "../transfer_checks.ts";
import { WriteGrants } from "../write_grants.ts";
import type { PoolDirectory } from "./pool_directory.ts";

export interface InProcessBackendArgs {
  readonly instanceId: InstanceId;
  readonly pool: MappedPool;
  /** Shared by all instances of the process. */
  readonly directory: PoolDirectory;
  readonly limits: TransferLimits;
  readonly clock: Clock;
  /** Bandwidth to simulate: a transfer takes its bytes / bandwidth on the clock. Default: as long as the copy takes. */
  readonly bytesPerMs?: number;
}

/**
 * Copies blocks between the pools of one process, in the calling thread, one round in each turn of the
 * clock. With a bandwidth and pools that hold nothing it simulates a link between instances.
 */
export class InProcessBackend implements MigrationBackend {
  readonly name = "in_process";
  readonly endpoint: BackendEndpoint;
  readonly #args: InProcessBackendArgs;
  readonly #grants: WriteGrants;
  #isClosed = false;

  constructor(args: InProcessBackendArgs) {
    const { instanceId, pool, directory } = args;
    this.#args = args;
    this.#grants = new WriteGrants(pool.numBlocks);
    this.endpoint = { pool: instanceId };
    directory.add(instanceId, { pool, grants: this.#grants });
  }

  get isReady(): boolean {
    return !this.#isClosed;
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.#grants.grant(migrationId, blocks);
  }

  /** A round is written without interruption, so no write is ever under way here. */
  revoke(migrationId: MigrationId): Promise<void> {
    this.#grants.revoke(migrationId);
    return Promise.resolve();
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { pool, limits, clock, bytesPerMs = Infinity } = this.#args;
    const { sourceBlocks, destinationBlocks } = transfer;
    checkLists(transfer);
    const startMs = clock.nowMs();
    let dueMs = startMs;
    let bytes = 0, descriptors = 0, rounds = 0;
    this.#openDestination(transfer, signal);
    for (
      const round of transferRounds(sourceBlocks, destinationBlocks, pool.layout.numLayers, limits)
    ) {
      const roundBytes = round.numBlocks * round.numLayers * layerBytes(pool.layout);
      dueMs += roundBytes / bytesPerMs;
      await this.#waitUntil(dueMs, signal);
      // Checked again before each write: the destination may have been revoked or closed meanwhile.
      copyRound(round, pool, this.#openDestination(transfer, signal));
      bytes += roundBytes;
      descriptors += round.runs.length;
      rounds++;
    }
    return { bytes, descriptors, rounds, transferMs: clock.nowMs() - startMs };
  }

  close(): Promise<void> {
    if (!this.#isClosed) this.#args.directory.remove(this.#args.instanceId);
    this.#isClosed = true;
    return Promise.resolve();
  }

  /** @throws {UnavailableError} the migration may not write, or the destination has no pool here */
  #openDestination(transfer: BlockTransfer, signal: AbortSignal): MappedPool {
    const { directory, pool, clock } = this.#args;
    const { endpoint, destination: { instanceId } } = transfer;
    checkStillWanted(transfer, signal, clock);
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    const destination = directory.get(endpoint.pool as InstanceId);
    if (!destination) throw new UnavailableError(`${instanceId} has no pool in this process`);
    const difference = layoutDifference(pool.layout, destination.pool.layout);
    if (difference) throw new UnavailableError(`KV pools differ: ${difference} (${instanceId})`);
    destination.grants.check(transfer.migrationId, transfer.destinationBlocks);
    return destination.pool;
  }

  /**
   * Waits at least one turn, so that engine steps go on, and ends early at an abort. A real timer may
   * ring late; the next round then waits less.
   */
  #waitUntil(dueMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#args;
    const delayMs = dueMs - clock.nowMs();
    return new Promise((resolve) => {
      if (delayMs <= 0) return clock.soon(resolve);
      const done = () => {
        cancel();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const cancel = clock.after(delayMs, done);
      signal.addEventListener("abort", done);
    });
  }
}

function copyRound(
  { runs, firstLayer, numLayers }: TransferRound,
  from: MappedPool,
  to: MappedPool,
): void {
  for (const run of runs) {
    if (run.numBlocks > 1 && copyMerged(run, from, to)) continue;
    for (let i = 0; i < run.numBlocks; i++) {
      const source = from.run(run.sourceBlock + i, firstLayer, numLayers);
      to.run(run.destinationBlock + i, firstLayer, numLayers).set(source);
    }
  }
}

/** Copies whole blocks by one copy; false if they are not adjacent in memory. */
function copyMerged(
  { sourceBlock, destinationBlock, numBlocks }: BlockRun,
  from: MappedPool,
  to: MappedPool,
) {
  const source = spanOf(from, sourceBlock, numBlocks);
  const destination = spanOf(to, destinationBlock, numBlocks);
  if (source === null || destination === null) return false;
  destination.set(source);
  return true;
}

/** `numBlocks` blocks as one view, or null if they are not adjacent in one buffer. */
function spanOf(pool: MappedPool, block: number, numBlocks: number): Uint8Array | null {
  const { numLayers } = pool.layout;
  const first = pool.run(block, 0, numLayers);
  const last = pool.run(block + numBlocks - 1, 0, numLayers);
  const isAdjacent = first.buffer === last.buffer &&
    last.byteOffset - first.byteOffset === (numBlocks - 1) * first.length;
  if (!isAdjacent) return null;
  return new Uint8Array(first.buffer, first.byteOffset, numBlocks * first.length);
}
