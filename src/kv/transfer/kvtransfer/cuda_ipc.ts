/** Blocks between the memory of CUDA devices: each process maps the others' pools by their IPC handles. */
import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { CudaError } from "../../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { blockBytes, type KvLayout, shardLayout } from "../../layout.ts";
import { polled } from "../../pool/cuda/polled.ts";
import { type DevicePool, type PoolShard, shardsOf } from "../../pool/pool.ts";
import { pauseMs, PIECE_BYTES } from "../pace.ts";
import { type BlockRun, transferRounds } from "../rounds.ts";
import { checkAlive, pause, type Puller, type PullOrder } from "./block_puller.ts";
import { type HostProcess, isAlive } from "./host_process.ts";
import { ShardedPuller } from "./sharded_puller.ts";

/** Bytes that are copied before a revocation is looked at: a millisecond of the slowest bus. */
const LARGE_PIECE_BYTES = 16 << 20;
/** A copy that takes longer will not end. */
const HANG_MS = 10_000;

/** The pool of another process, mapped into this one. */
interface Peer {
  readonly process: HostProcess;
  readonly address: bigint;
  /** Pulls that use it. */
  numUsers: number;
}

interface Pull {
  readonly migrationId: MigrationId;
  readonly stop: AbortController;
  readonly settled: Promise<unknown>;
}

/**
 * What `KvTransferBackend` needs for the pool of a device, or of several: then the handle is those of all devices in
 * their order.
 * @throws {UnavailableError} a device failed
 */
export function openCudaIpc(
  pool: DevicePool,
  cuda = openCuda(),
): { puller: Puller; ipcHandle: string } {
  try {
    const layout = shardLayout(pool.layout);
    const opened = shardsOf(pool).map((shard) => {
      cuda.setDevice(shard.ordinal);
      const puller = new CudaIpcPuller(cuda, { ...shard, layout });
      return { puller, ipcHandle: cuda.ipcMemHandle(shard.address).toHex() };
    });
    const pullers = opened.map(({ puller }) => puller);
    return {
      puller: pullers.length === 1 ? pullers[0] : new ShardedPuller(pullers),
      ipcHandle: opened.map(({ ipcHandle }) => ipcHandle).join(""),
    };
  } catch (error) {
    throw new UnavailableError(`--migration-backend kvtransfer: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** What a device has of a pool, and the layout of that. */
interface LocalShard extends PoolShard {
  readonly layout: KvLayout;
}

/**
 * Copies blocks from the pools of other processes into this process's pool, on one device and on a stream of the
 * lowest priority. The source's blocks are complete: an executor waits for its device before a step ends. No call
 * waits for the device, so it runs on the thread that made it.
 */
export class CudaIpcPuller implements Puller {
  readonly #cuda: Cuda;
  readonly #pool: LocalShard;
  readonly #stream: bigint;
  readonly #event: bigint;
  /** By generation. */
  readonly #peers = new Map<string, Peer>();
  readonly #pulls = new Set<Pull>();
  readonly #death = Promise.withResolvers<string>();
  /** Copies run one after the other. Never rejects. */
  #queue: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | null = null;
  failure: string | null = null;

  /** @param pool whose device is current */
  constructor(cuda: Cuda, pool: LocalShard) {
    this.#cuda = cuda;
    this.#pool = pool;
    this.#stream = cuda.createStream({ priority: cuda.priorityRange().least });
    this.#event = cuda.createEvent();
  }

  get died(): Promise<string> {
    return this.#death.promise;
  }

  async pull(order: PullOrder): Promise<void> {
    if (this.failure !== null) throw new UnavailableError(this.failure);
    const stop = new AbortController();
    const copying = this.#queue.then(() => this.#copyAll(order, stop.signal));
    const settled = this.#queue = copying.catch(() => {});
    const pull: Pull = { migrationId: order.migrationId, stop, settled };
    this.#pulls.add(pull);
    await copying.finally(() => this.#pulls.delete(pull));
  }

  /** The memory of a device is resident. */
  prepare(): void {}

  async stop(migrationId?: MigrationId): Promise<void> {
    const found = [...this.#pulls].filter((pull) =>
      (migrationId ?? pull.migrationId) === pull.migrationId
    );
    for (const { stop } of found) stop.abort();
    await Promise.all(found.map(({ settled }) => settled));
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.failure ??= "the migration backend is closed";
    await this.stop();
    try {
      for (const { address } of this.#peers.values()) this.#unmap(address);
      this.#cuda.destroyEvent(this.#event);
      this.#cuda.destroyStream(this.#stream);
    } catch (error) {
      if (!(error instanceof CudaError)) throw error; // of a device that has failed, all is lost
    }
    this.#peers.clear();
  }

  async #copyAll(order: PullOrder, stop: AbortSignal): Promise<void> {
    const { source: { process }, generation } = order;
    const endMs = performance.now() + order.timeoutMs;
    checkAlive(process);
    try {
      this.#closeDead();
      const peer = this.#open(order);
      peer.numUsers++;
      try {
        await this.#copy(order, peer.address, endMs, stop);
      } finally {
        peer.numUsers--;
      }
    } catch (error) {
      if (!(error instanceof CudaError)) throw error;
      throw new UnavailableError(
        `the memory of process ${process.pid} (${generation}) cannot be copied: ${error.message}`,
        { cause: error },
      );
    }
    // Memory of a process that has ended holds anything.
    checkAlive(process);
  }

  async #copy(order: PullOrder, from: bigint, endMs: number, stop: AbortSignal): Promise<void> {
    const { migrationId, isBackground } = order;
    const pieceBytes = isBackground ? PIECE_BYTES : LARGE_PIECE_BYTES;
    const pieces = piecesOf(order, this.#pool, pieceBytes);
    for (const [i, runs] of pieces.entries()) {
      const startMs = performance.now();
      if (stop.aborted) throw new UnavailableError(`migration ${migrationId} was revoked`);
      if (startMs > endMs) throw new UnavailableError("the transfer's deadline has passed");
      this.#submit(runs, from);
      await this.#untilCopied(startMs);
      const nowMs = performance.now();
      const left = pieces.length - 1 - i;
      if (!isBackground) continue;
      const pace = { tookMs: nowMs - startMs, pieces: left, leftMs: endMs - nowMs };
      await pause(pauseMs(pace), stop);
    }
  }

  #submit(runs: readonly BlockRun[], from: bigint): void {
    const bytes = blockBytes(this.#pool.layout);
    const at = (address: bigint, block: number) => address + BigInt(block * bytes);
    this.#cuda.setDevice(this.#pool.ordinal); // the pullers of other devices are of this thread, too
    this.#cuda.copyBatch(
      BigUint64Array.from(runs, (run) => at(this.#pool.address, run.destinationBlock)),
      BigUint64Array.from(runs, (run) => at(from, run.sourceBlock)),
      BigUint64Array.from(runs, (run) => BigInt(run.numBlocks * bytes)),
      runs.length,
      this.#stream,
    );
    this.#cuda.recordEvent(this.#event, this.#stream);
  }

  /** Waits also for a copy that hangs: it may still write. */
  async #untilCopied(startMs: number): Promise<void> {
    await polled(() => {
      if (this.#cuda.queryEvent(this.#event)) return true;
      if (this.failure === null && performance.now() - startMs > HANG_MS) {
        this.failure = `a copy on device ${this.#pool.ordinal} has not ended in ${HANG_MS} ms`;
        this.#death.resolve(this.failure);
      }
      return false;
    });
  }

  /** Maps a source's pool, once for each start of the source. */
  #open({ generation, source: { process, address, ipcHandle } }: PullOrder): Peer {
    const known = this.#peers.get(generation);
    if (known) return known;
    if (address === null || ipcHandle === undefined) {
      throw new UnavailableError(
        `the naming entry of process ${process.pid} has no handle of device memory: start it with ` +
          "--migration-backend-transfer-type cuda_ipc",
      );
    }
    // CUDA does not open a handle in the process that exported it.
    if (process.pid === Deno.pid) return { process, address, numUsers: 0 };
    this.#cuda.setDevice(this.#pool.ordinal);
    const mapped = this.#cuda.openIpcMemHandle(Uint8Array.fromHex(ipcHandle));
    const peer = { process, address: mapped, numUsers: 0 };
    this.#peers.set(generation, peer);
    return peer;
  }

  /** The memory of an ended process stays allocated while it is mapped. */
  #closeDead(): void {
    for (const [generation, { process, address, numUsers }] of this.#peers) {
      if (numUsers > 0 || isAlive(process)) continue;
      this.#peers.delete(generation);
      this.#unmap(address);
    }
  }

  /** On the device on which it was mapped: another puller's may be current. */
  #unmap(address: bigint): void {
    this.#cuda.setDevice(this.#pool.ordinal);
    this.#cuda.closeIpcMemHandle(address);
  }
}

/** The runs of a pull in pieces of at most so many bytes, or of one block. */
function piecesOf(
  { sourceBlocks, destinationBlocks }: PullOrder,
  { layout }: LocalShard,
  pieceBytes: number,
): BlockRun[][] {
  const bufferBlocks = Math.max(1, Math.floor(pieceBytes / blockBytes(layout)));
  const limits = { bufferBlocks, numLayers: layout.numLayers };
  const rounds = transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, limits);
  return [...rounds].map(({ runs }) => [...runs]);
}
