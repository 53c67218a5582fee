import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { CudaError, OutOfMemoryError } from "../../../../ffi/cuda/errors.ts";
import { addressOf, bytesAt } from "../../../../ffi/memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import { blockBytes, type KvLayout, layerBytes, shardLayout } from "../../layout.ts";
import type { DevicePool, PoolRun, PoolShard } from "../pool.ts";
import { checkCopy } from "../pool_bounds.ts";
import { polled } from "./polled.ts";

/** Bytes of one of the two bounce buffers: large enough for full bandwidth of PCIe. */
const BOUNCE_BYTES = 4 << 20;
/** A copy takes milliseconds: one that has not ended by then hangs, and so does the device. */
const HANG_MS = 10_000;

export interface CudaKvPoolArgs {
  readonly cuda: Cuda;
  readonly layout: KvLayout;
  readonly numBlocks: number;
  /** Device address of block 0. The memory is the executor's and outlives the pool. */
  readonly address: bigint;
  readonly ordinal: number;
  /** The other devices, if blocks are divided among several. */
  readonly others?: readonly PoolShard[];
  /** Bytes of a bounce buffer; for tests. */
  readonly bounceBytes?: number;
  /** Time after which a copy counts as hung; for tests. */
  readonly hangMs?: number;
}

/** A part of the blocks: a device, and the stream of its copies. */
interface Shard extends PoolShard {
  readonly stream: bigint;
}

/** Contiguous bytes of a device, and where they go in a buffer. */
interface Piece {
  readonly shard: Shard;
  readonly device: bigint;
  readonly offset: number;
  readonly bytes: number;
}

/** Pinned memory, and the events of the copies that use it. */
interface Bounce {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly events: CopyEvents;
}

/** An event for each device. */
type CopyEvents = ReadonlyMap<Shard, bigint>;

/**
 * A pool in the memory of a CUDA device, or of several. Copies run one after the other, on a stream of their own
 * for each device; the parts of one copy on several devices run side by side. They go through two pinned bounce
 * buffers: the devices fill one while the host empties the other. A buffer of
 * {@linkcode CudaKvPool.allocateStaging} is pinned itself and needs no bounce buffer. Only the thread that
 * opened the pool uses it.
 *
 * If a copy hangs, the pool has failed for good. A read fails then. A write goes on waiting until the pool
 * is closed, because the device may still write the blocks: they must not be used for something else. The
 * buffers of hung copies are never freed.
 */
export class CudaKvPool implements DevicePool {
  readonly memory = "device";
  readonly device = "cuda";
  readonly layout: KvLayout;
  readonly numBlocks: number;
  readonly address: bigint;
  readonly ordinal: number;
  readonly others: readonly PoolShard[];
  readonly #cuda: Cuda;
  readonly #shards: readonly Shard[];
  /** Of the blocks on one device. */
  readonly #shardLayout: KvLayout;
  readonly #bounceBytes: number;
  #bounces: readonly [Bounce, Bounce] | null = null;
  /** Pinned buffers, by their address. */
  readonly #staging = new Map<bigint, number>();
  /** Resolves when the copies that were asked for have ended. Never rejects. */
  #queue: Promise<void> = Promise.resolve();
  #isClosed = false;
  readonly #hangMs: number;
  /** Why no more copies are made; null while the device works. */
  #failure: string | null = null;
  /** Rejects with {@linkcode #failure}. */
  readonly #hung = Promise.withResolvers<never>();
  readonly failed: Promise<string> = this.#hung.promise.catch((error: Error) => error.message);

  constructor(args: CudaKvPoolArgs) {
    const { cuda, layout, numBlocks, address, ordinal, bounceBytes = BOUNCE_BYTES } = args;
    const { others = [] } = args;
    this.#hangMs = args.hangMs ?? HANG_MS;
    this.layout = layout;
    this.numBlocks = numBlocks;
    this.address = address;
    this.ordinal = ordinal;
    this.others = others;
    this.#cuda = cuda;
    this.#bounceBytes = bounceBytes;
    this.#shardLayout = shardLayout(layout);
    this.#shards = [{ ordinal, address }, ...others].map((shard) => {
      cuda.setDevice(shard.ordinal);
      return { ...shard, stream: cuda.createStream() };
    });
  }

  async read(runs: readonly PoolRun[], into: Uint8Array<ArrayBuffer>): Promise<void> {
    const pieces = this.#piecesOf(runs, into);
    const reading = this.#enqueue(() =>
      this.#isPinned(into)
        ? this.#copyStraight(pieces, into, "read")
        : this.#readBounced(pieces, into)
    );
    await Promise.race([reading, this.#hung.promise]); // it may stand behind a write that hangs
  }

  async write(runs: readonly PoolRun[], from: Uint8Array<ArrayBuffer>): Promise<void> {
    const pieces = this.#piecesOf(runs, from);
    await this.#enqueue(() =>
      this.#isPinned(from)
        ? this.#copyStraight(pieces, from, "write")
        : this.#writeBounced(pieces, from)
    );
  }

  allocateStaging(byteLength: number): Uint8Array<ArrayBuffer> {
    if (this.#isClosed) throw new UnavailableError("the KV pool is closed");
    if (byteLength === 0) return new Uint8Array(0);
    const address = this.#pinned(byteLength);
    this.#staging.set(address, byteLength);
    return bytesAt(address, byteLength);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return await this.#queue;
    this.#isClosed = true;
    await this.#queue;
    if (this.#failure !== null) return;
    try {
      this.#free();
    } catch (error) {
      if (!(error instanceof CudaError)) throw error; // of a device that has failed, all memory is lost
    }
  }

  #free(): void {
    for (const address of this.#staging.keys()) this.#cuda.hostFree(address);
    this.#staging.clear();
    for (const { address, events } of this.#bounces ?? []) {
      this.#destroyEvents(events);
      this.#cuda.hostFree(address);
    }
    for (const { stream } of this.#shards) this.#cuda.destroyStream(stream);
  }

  #piecesOf(runs: readonly PoolRun[], buffer: Uint8Array): Piece[] {
    if (this.#isClosed) throw new UnavailableError("the KV pool is closed");
    if (this.#failure !== null) throw new UnavailableError(this.#failure);
    const { layout, numBlocks } = this;
    checkCopy(layout, numBlocks, runs, buffer.length);
    const pieces: Piece[] = [];
    const ofShard = this.#shardLayout, isWhole = this.#shards.length === 1;
    let offset = 0;
    for (const { block, firstLayer, numLayers } of runs) {
      // The layers of a block follow each other on one device.
      const [step, bytes] = isWhole
        ? [numLayers, numLayers * layerBytes(ofShard)]
        : [1, layerBytes(ofShard)];
      for (let layer = firstLayer; layer < firstLayer + numLayers; layer += step) {
        const start = BigInt(block * blockBytes(ofShard) + layer * layerBytes(ofShard));
        for (const shard of this.#shards) {
          pieces.push({ shard, device: shard.address + start, offset, bytes });
          offset += bytes;
        }
      }
    }
    return pieces;
  }

  #isPinned({ buffer }: Uint8Array<ArrayBuffer>): boolean {
    if (this.#staging.size === 0) return false;
    return this.#staging.has(addressOf(new Uint8Array(buffer)));
  }

  /** After a failed copy the next ones still run: if the device has failed, they get its error, too. */
  async #enqueue(copy: () => Promise<void>): Promise<void> {
    const copied = this.#queue.then(() => {
      if (this.#failure !== null) throw new UnavailableError(this.#failure);
      return copy();
    });
    this.#queue = copied.catch(() => {});
    try {
      await copied;
    } catch (error) {
      if (!(error instanceof CudaError)) throw error;
      throw new UnavailableError(`the KV pool's device failed: ${error.message}`);
    }
  }

  async #copyStraight(
    pieces: readonly Piece[],
    buffer: Uint8Array<ArrayBuffer>,
    direction: "read" | "write",
  ): Promise<void> {
    if (pieces.length === 0) return;
    const host = addressOf(buffer);
    this.#submit(pieces, host, 0, direction);
    const events = this.#createEvents();
    this.#record(events);
    try {
      await this.#copied(events, direction);
    } finally {
      if (this.#failure === null) this.#destroyEvents(events);
    }
  }

  async #readBounced(pieces: readonly Piece[], into: Uint8Array): Promise<void> {
    let previous: { readonly bounce: Bounce; readonly start: number; readonly end: number } | null =
      null;
    const empty = async () => {
      if (previous === null) return;
      const { bounce, start, end } = previous;
      await this.#copied(bounce.events, "read");
      into.set(bounce.bytes.subarray(0, end - start), start);
    };
    let turn = 0;
    for (const { part, start, end } of partsOf(pieces, this.#bounceBytes)) {
      const bounce = this.#bounce(turn++);
      this.#submit(part, bounce.address, start, "read");
      this.#record(bounce.events);
      await empty();
      previous = { bounce, start, end };
    }
    await empty();
  }

  async #writeBounced(pieces: readonly Piece[], from: Uint8Array): Promise<void> {
    let turn = 0;
    for (const { part, start, end } of partsOf(pieces, this.#bounceBytes)) {
      const bounce = this.#bounce(turn++);
      await this.#copied(bounce.events, "write"); // of two parts before, or never used
      bounce.bytes.set(from.subarray(start, end));
      this.#submit(part, bounce.address, start, "write");
      this.#record(bounce.events);
    }
    for (const { events } of this.#bounces ?? []) {
      await this.#copied(events, "write");
    }
  }

  #createEvents(): CopyEvents {
    return new Map(this.#shards.map((shard) => {
      this.#cuda.setDevice(shard.ordinal);
      return [shard, this.#cuda.createEvent()];
    }));
  }

  #record(events: CopyEvents): void {
    for (const [{ stream }, event] of events) this.#cuda.recordEvent(event, stream);
  }

  #destroyEvents(events: CopyEvents): void {
    for (const event of events.values()) this.#cuda.destroyEvent(event);
  }

  /** @throws {UnavailableError} the copies hang, and nobody can suffer from them any more */
  async #copied(events: CopyEvents, direction: "read" | "write"): Promise<void> {
    const startMs = performance.now();
    const left = new Map(events);
    await polled(() => {
      for (const [shard, event] of left) if (this.#cuda.queryEvent(event)) left.delete(shard);
      if (left.size === 0) return true;
      if (this.#failure === null && performance.now() - startMs > this.#hangMs) {
        const [{ ordinal }] = left.keys();
        this.#failure = `a copy on device ${ordinal} has not ended in ${this.#hangMs} ms`;
        this.#hung.reject(new UnavailableError(this.#failure));
      }
      if (this.#failure === null || (direction === "write" && !this.#isClosed)) return false;
      throw new UnavailableError(this.#failure);
    });
  }

  /** Copies pieces between the device and host memory, in which offset `start` is at `host`. */
  #submit(
    pieces: readonly Piece[],
    host: bigint,
    start: number,
    direction: "read" | "write",
  ): void {
    for (const shard of this.#shards) {
      const own = pieces.filter((piece) => piece.shard === shard);
      const devices = BigUint64Array.from(own, ({ device }) => device);
      const hosts = BigUint64Array.from(own, ({ offset }) => host + BigInt(offset - start));
      const sizes = BigUint64Array.from(own, ({ bytes }) => BigInt(bytes));
      const [to, from] = direction === "read" ? [hosts, devices] : [devices, hosts];
      this.#cuda.setDevice(shard.ordinal);
      this.#cuda.copyBatch(to, from, sizes, own.length, shard.stream);
    }
  }

  #bounce(turn: number): Bounce {
    this.#bounces ??= [this.#newBounce(), this.#newBounce()];
    return this.#bounces[turn % 2];
  }

  #newBounce(): Bounce {
    const address = this.#pinned(this.#bounceBytes);
    const bytes = bytesAt(address, this.#bounceBytes);
    return { address, bytes, events: this.#createEvents() };
  }

  #pinned(byteLength: number): bigint {
    try {
      return this.#cuda.hostAlloc(byteLength);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      throw new UnavailableError(`the host cannot lock ${byteLength} bytes of memory`);
    }
  }
}

/** Cuts pieces, which follow each other in the buffer, into parts of at most `maxBytes`. */
function* partsOf(pieces: readonly Piece[], maxBytes: number) {
  let part: Piece[] = [], start = 0, end = 0;
  for (const { shard, device, offset, bytes } of pieces) {
    for (let done = 0; done < bytes;) {
      if (end - start === maxBytes) {
        yield { part, start, end };
        [part, start] = [[], end];
      }
      const count = Math.min(bytes - done, maxBytes - (end - start));
      part.push({ shard, device: device + BigInt(done), offset: offset + done, bytes: count });
      done += count;
      end += count;
    }
  }
  if (part.length > 0) yield { part, start, end };
}
