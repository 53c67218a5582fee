import { setImmediate } from "node:timers/promises";
import { type ProcessMemory, ProcessMemoryError } from "../../../../ffi/process_memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { pauseMs, PIECE_BYTES } from "../pace.ts";
import { PoolCursor, type PoolMemory } from "../pool_cursor.ts";
import { type HostProcess, isAlive } from "./host_process.ts";

/**
 * Bytes that one system call copies at full speed: half a millisecond, which is how long a revocation
 * waits at most.
 */
const LARGE_PIECE_BYTES = 4 << 20;

/** Blocks of another process that come into this one's pool: `sourceBlocks[i]` to `destinationBlocks[i]`. */
export interface PullOrder {
  readonly migrationId: MigrationId;
  /** Of the source. */
  readonly generation: string;
  readonly source: {
    readonly process: HostProcess;
    /** Of block 0 in its memory; null if its pool only counts blocks. */
    readonly address: bigint | null;
    /** By which another process opens memory of a device. */
    readonly ipcHandle?: string;
  };
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  /** Nothing is written after it. */
  readonly timeoutMs: number;
  /** Pauses between pieces: see `pace.ts`. */
  readonly isBackground: boolean;
}

/** What copies blocks into this process's pool. */
export interface Puller {
  /** Why it has failed for good; null while it works. */
  readonly failure: string | null;
  /** Resolves with the reason when it has failed for good. */
  readonly died: Promise<string>;
  /**
   * Resolves when the blocks are in place.
   * @throws {UnavailableError} the source has ended or cannot be read, the time is over, or the pull was
   *   stopped
   */
  pull(order: PullOrder): Promise<void>;
  /** Makes memory resident, where the first write would wait for it. */
  prepare(blocks: readonly number[]): void;
  /** Resolves when no pull of the migration writes any more. Never rejects. */
  stop(migrationId: MigrationId): Promise<void>;
  /** Resolves when nothing is written any more. */
  close(): Promise<void>;
}

/** A pull under way. */
interface Pull {
  readonly migrationId: MigrationId;
  readonly stop: AbortController;
  readonly settled: Promise<unknown>;
}

/**
 * Copies blocks from the pools of other processes into this process's pool, a piece at a time. It writes
 * only in the turns of its own event loop, so that a stop between two of them ends a pull for good.
 */
export class BlockPuller {
  readonly #memory: ProcessMemory;
  readonly #pool: PoolMemory;
  readonly #pulls = new Set<Pull>();

  /** @param pool of the destination; the source's has the same layout */
  constructor(memory: ProcessMemory, pool: PoolMemory) {
    this.#memory = memory;
    this.#pool = pool;
  }

  /**
   * Resolves when the blocks are in place. The blocks are in the pools.
   * @throws {UnavailableError} the source has ended or cannot be read, the time is over, or the pull was
   *   stopped
   */
  async pull(order: PullOrder): Promise<void> {
    const stop = new AbortController();
    const copying = this.#copy(order, stop.signal);
    const settled = copying.catch(() => {});
    const pull: Pull = { migrationId: order.migrationId, stop, settled };
    this.#pulls.add(pull);
    await copying.finally(() => this.#pulls.delete(pull));
  }

  /** Resolves when no pull of the migration, or of any, writes any more. */
  async stop(migrationId?: MigrationId): Promise<void> {
    const found = [...this.#pulls].filter((pull) =>
      (migrationId ?? pull.migrationId) === pull.migrationId
    );
    for (const { stop } of found) stop.abort();
    await Promise.all(found.map(({ settled }) => settled));
  }

  async #copy(order: PullOrder, stop: AbortSignal): Promise<void> {
    const { source: { process, address }, isBackground } = order;
    const endMs = performance.now() + order.timeoutMs;
    const { layout } = this.#pool;
    const whole = { bufferBlocks: order.sourceBlocks.length, numLayers: layout.numLayers };
    const from = new PoolCursor({ address, layout }, order.sourceBlocks, whole);
    const into = new PoolCursor(this.#pool, order.destinationBlocks, whole);
    checkAlive(process);
    const pieceBytes = isBackground ? PIECE_BYTES : LARGE_PIECE_BYTES;
    while (into.remainingBytes > 0) {
      const startMs = performance.now();
      if (stop.aborted) throw new UnavailableError(`migration ${order.migrationId} was revoked`);
      if (startMs > endMs) throw new UnavailableError("the transfer's deadline has passed");
      const copied = this.#read(process.pid, from.placesOf(pieceBytes), into.placesOf(pieceBytes));
      from.advance(copied);
      into.advance(copied);
      const nowMs = performance.now();
      const pieces = Math.ceil(into.remainingBytes / pieceBytes);
      if (isBackground) {
        await pause(pauseMs({ tookMs: nowMs - startMs, pieces, leftMs: endMs - nowMs }), stop);
      }
      if (pieces > 0) await setImmediate();
    }
    // If the process had ended, another one could have got its number, and what was read would be its.
    checkAlive(process);
  }

  #read(
    pid: number,
    from: BigUint64Array<ArrayBuffer>,
    into: BigUint64Array<ArrayBuffer>,
  ): number {
    try {
      return this.#memory.read(pid, from, into);
    } catch (error) {
      if (!(error instanceof ProcessMemoryError)) throw error;
      throw new UnavailableError(adviceOn(error));
    }
  }
}

function adviceOn({ reason, message }: ProcessMemoryError): string {
  if (reason !== "forbidden") return message;
  return `${message} (process_vm_readv). Allow it: kernel.yama.ptrace_scope below 2, the same user for ` +
    `both processes, in a container the capability SYS_PTRACE. Or choose --migration-backend gloo`;
}

/** @throws {UnavailableError} the process has ended */
export function checkAlive(process: HostProcess): void {
  if (!isAlive(process)) {
    throw new UnavailableError(`process ${process.pid}, the source, has ended`);
  }
}

/** Ends early when it is stopped. */
export function pause(delayMs: number, stop: AbortSignal): Promise<void> {
  if (delayMs < 1 || stop.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, delayMs);
    stop.addEventListener("abort", end);
  });
}
