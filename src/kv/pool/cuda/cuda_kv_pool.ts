import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { CudaError, OutOfMemoryError } from "../../../../ffi/cuda/errors.ts";
import { addressOf, bytesAt } from "../../../../ffi/memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import { blockBytes, type KvLayout, layerBytes } from "../../layout.ts";
import type { DevicePool, PoolRun } from "../pool.ts";
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
  /** Bytes of a bounce buffer; for tests. */
  readonly bounceBytes?: number;
  /** Time after which a copy counts as hung; for tests. */
  readonly hangMs?: number;
}

/** Contiguous bytes of the device, and where they go in a buffer. */
interface Piece {
  readonly device: bigint;
  readonly offset: number;
  readonly bytes: number;
}

/** Pinned memory, and the event of the copies that use it. */
interface Bounce {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly event: bigint;
}

/**
 * A pool in the memory of a CUDA device. Copies run one after the other, on a stream of their own. They go
 * through two pinned bounce buffers: the device fills one while the host empties the other. A buffer of
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
  readonly #cuda: Cuda;
  readonly #stream: bigint;
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
    this.#hangMs = args.hangMs ?? HANG_MS;
    this.layout = layout;
    this.numBlocks = numBlocks;
    this.address = address;
    this.ordinal = ordinal;
    this.#cuda = cuda;
    this.#bounceBytes = bounceBytes;
    cuda.setDevice(ordinal);
    this.#stream = cuda.createStream();
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
    for (const { address, event } of this.#bounces ?? []) {
      this.#cuda.destroyEvent(event);
      this.#cuda.hostFree(address);
    }
    this.#cuda.destroyStream(this.#stream);
  }

  #piecesOf(runs: readonly PoolRun[], buffer: Uint8Array): Piece[] {
    if (this.#isClosed) throw new UnavailableError("the KV pool is closed");
    if (this.#failure !== null) throw new UnavailableError(this.#failure);
    const { layout, numBlocks } = this;
    checkCopy(layout, numBlocks, runs, buffer.length);
    const pieces: Piece[] = [];
    let offset = 0;
    for (const { block, firstLayer, numLayers } of runs) {
      const bytes = numLayers * layerBytes(layout);
      const start = block * blockBytes(layout) + firstLayer * layerBytes(layout);
      if (bytes > 0) pieces.push({ device: this.address + BigInt(start), offset, bytes });
      offset += bytes;
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
    const event = this.#cuda.createEvent();
    this.#cuda.recordEvent(event, this.#stream);
    try {
      await this.#copied(event, direction);
    } finally {
      if (this.#failure === null) this.#cuda.destroyEvent(event);
    }
  }

  async #readBounced(pieces: readonly Piece[], into: Uint8Array): Promise<void> {
    let previous: { readonly bounce: Bounce; readonly start: number; readonly end: number } | null =
      null;
    const empty = async () => {
      if (previous === null) return;
      const { bounce, start, end } = previous;
      await this.#copied(bounce.event, "read");
      into.set(bounce.bytes.subarray(0, end - start), start);
    };
    let turn = 0;
    for (const { part, start, end } of partsOf(pieces, this.#bounceBytes)) {
      const bounce = this.#bounce(turn++);
      this.#submit(part, bounce.address, start, "read");
      this.#cuda.recordEvent(bounce.event, this.#stream);
      await empty();
      previous = { bounce, start, end };
    }
    await empty();
  }

  async #writeBounced(pieces: readonly Piece[], from: Uint8Array): Promise<void> {
    let turn = 0;
    for (const { part, start, end } of partsOf(pieces, this.#bounceBytes)) {
      const bounce = this.#bounce(turn++);
      await this.#copied(bounce.event, "write"); // of two parts before, or never used
      bounce.bytes.set(from.subarray(start, end));
      this.#submit(part, bounce.address, start, "write");
      this.#cuda.recordEvent(bounce.event, this.#stream);
    }
    for (const { event } of this.#bounces ?? []) {
      await this.#copied(event, "write");
    }
  }

  /** @throws {UnavailableError} the copies hang, and nobody can suffer from them any more */
  async #copied(event: bigint, direction: "read" | "write"): Promise<void> {
    const startMs = performance.now();
    await polled(() => {
      if (this.#cuda.queryEvent(event)) return true;
      if (this.#failure === null && performance.now() - startMs > this.#hangMs) {
        this.#failure = `a copy on device ${this.ordinal} has not ended in ${this.#hangMs} ms`;
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
    const count = pieces.length;
    const devices = BigUint64Array.from(pieces, ({ device }) => device);
    const hosts = BigUint64Array.from(pieces, ({ offset }) => host + BigInt(offset - start));
    const sizes = BigUint64Array.from(pieces, ({ bytes }) => BigInt(bytes));
    if (direction === "read") this.#cuda.copyBatch(hosts, devices, sizes, count, this.#stream);
    else this.#cuda.copyBatch(devices, hosts, sizes, count, this.#stream);
  }

  #bounce(turn: number): Bounce {
    this.#bounces ??= [this.#newBounce(), this.#newBounce()];
    return this.#bounces[turn % 2];
  }

  #newBounce(): Bounce {
    const address = this.#pinned(this.#bounceBytes);
    const bytes = bytesAt(address, this.#bounceBytes);
    return { address, bytes, event: this.#cuda.createEvent() };
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
  for (const { device, offset, bytes } of pieces) {
    for (let done = 0; done < bytes;) {
      if (end - start === maxBytes) {
        yield { part, start, end };
        [part, start] = [[], end];
      }
      const count = Math.min(bytes - done, maxBytes - (end - start));
      part.push({ device: device + BigInt(done), offset: offset + done, bytes: count });
      done += count;
      end += count;
    }
  }
  if (part.length > 0) yield { part, start, end };
}
