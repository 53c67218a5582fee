import { setImmediate } from "node:timers/promises";
import { type ProcessMemory, ProcessMemoryError } from "../../../../ffi/process_memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import { blockBytes } from "../../layout.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { pauseMs, PIECE_BYTES } from "../pace.ts";
import { PoolCursor, type PoolMemory } from "../pool_cursor.ts";
import { transferRounds } from "../rounds.ts";
import { type HostProcess, isAlive } from "./host_process.ts";
import type { UcxPiece, UcxPool, UcxSource } from "./ucx_pool.ts";

/** Bytes that one system call copies at full speed: a revocation waits for it, about a millisecond. */
const LARGE_PIECE_BYTES = 4 << 20;
/**
 * How long a pull at full speed copies before its thread's event loop has a turn: one takes 60 us, a tenth
 * of a piece.
 */
const TURN_MS = 10;

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
    /** Of a process on another host; null: its memory can be read. */
    readonly ucx: UcxSource | null;
  };
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  /** Nothing is written after it. */
  readonly timeoutMs: number;
  /** Pauses between pieces: see `pace.ts`. */
  readonly isBackground: boolean;
  /** Another thread sets it to 1 to end the pull before its next piece. */
  readonly stopWord?: Int32Array<SharedArrayBuffer>;
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
 * Copies blocks from the pools of other processes into this process's pool, a piece at a time. Nothing
 * writes beside its thread: a pull that was stopped between two pieces has ended for good.
 */
export class BlockPuller {
  readonly #memory: ProcessMemory;
  readonly #pool: PoolMemory;
  readonly #ucx: UcxPool | null;
  readonly #pulls = new Set<Pull>();

  /**
   * @param pool of the destination; the source's has the same layout
   * @param ucx the same pool; null: nothing comes from other hosts
   */
  constructor(memory: ProcessMemory, pool: PoolMemory, ucx: UcxPool | null = null) {
    this.#memory = memory;
    this.#pool = pool;
    this.#ucx = ucx;
  }

  /**
   * Resolves when the blocks are in place. The blocks are in the pools.
   * @throws {UnavailableError} the source has ended or cannot be read, the time is over, or the pull was
   *   stopped
   */
  async pull(order: PullOrder): Promise<void> {
    const stop = new AbortController();
    const { ucx } = order.source;
    const copying = ucx === null
      ? this.#copy(order, stop.signal)
      : this.#copyFromHost(order, ucx, stop.signal);
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
    let turnMs = performance.now();
    while (into.remainingBytes > 0) {
      const startMs = performance.now();
      checkGoesOn(order, stop, startMs, endMs);
      const copied = this.#read(process.pid, from.placesOf(pieceBytes), into.placesOf(pieceBytes));
      from.advance(copied);
      into.advance(copied);
      const nowMs = performance.now();
      const pieces = Math.ceil(into.remainingBytes / pieceBytes);
      if (pieces === 0) break;
      if (isBackground) {
        await pause(pauseMs({ tookMs: nowMs - startMs, pieces, leftMs: endMs - nowMs }), stop);
      } else if (nowMs - turnMs < TURN_MS) continue;
      await setImmediate();
      turnMs = performance.now();
    }
    // If the process had ended, another one could have got its number, and what was read would be its.
    checkAlive(process);
  }

  async #copyFromHost(order: PullOrder, source: UcxSource, stop: AbortSignal): Promise<void> {
    if (this.#ucx === null) throw new UnavailableError("UCX is not open here");
    const endMs = performance.now() + order.timeoutMs;
    // A read of UCX that waits for the source ends at the deadline too.
    const ending = AbortSignal.any([stop, AbortSignal.timeout(Math.ceil(order.timeoutMs))]);
    const pieceBytes = order.isBackground ? PIECE_BYTES : LARGE_PIECE_BYTES;
    const pieces = this.#pieces(order, pieceBytes);
    for (const [i, piece] of pieces.entries()) {
      const startMs = performance.now();
      checkGoesOn(order, stop, startMs, endMs);
      await this.#ucx.read(source, piece, ending);
      const nowMs = performance.now();
      if (!order.isBackground) continue;
      const left = { pieces: pieces.length - 1 - i, leftMs: endMs - nowMs };
      await pause(pauseMs({ tookMs: nowMs - startMs, ...left }), stop);
    }
    checkGoesOn(order, stop, performance.now(), endMs);
  }

  /** Pieces that are contiguous at both ends. */
  #pieces({ sourceBlocks, destinationBlocks }: PullOrder, pieceBytes: number): UcxPiece[] {
    const { layout } = this.#pool, bytes = blockBytes(layout);
    const whole = { bufferBlocks: sourceBlocks.length, numLayers: layout.numLayers };
    const pieces: UcxPiece[] = [];
    for (
      const { runs } of transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, whole)
    ) {
      for (const { sourceBlock, destinationBlock, numBlocks } of runs) {
        for (let at = 0; at < numBlocks * bytes; at += pieceBytes) {
          pieces.push({
            sourceOffset: sourceBlock * bytes + at,
            destinationOffset: destinationBlock * bytes + at,
            byteLength: Math.min(pieceBytes, numBlocks * bytes - at),
          });
        }
      }
    }
    return pieces;
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

/** @throws {UnavailableError} the pull was stopped, or its time is over */
function checkGoesOn(
  { migrationId, stopWord }: PullOrder,
  stop: AbortSignal,
  nowMs: number,
  endMs: number,
): void {
  const isStopped = stop.aborted || (stopWord !== undefined && Atomics.load(stopWord, 0) !== 0);
  if (isStopped) throw new UnavailableError(`migration ${migrationId} was revoked`);
  if (nowMs > endMs) throw new UnavailableError("the transfer's deadline has passed");
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
