import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { blockBytes, type KvLayout } from "../../layout.ts";

/** Blocks in one place: device memory, or pinned memory of the host. */
export interface BlockMemory {
  /** Of block 0; the blocks follow each other. */
  readonly address: bigint;
  readonly numBlocks: number;
}

/** Copies whole blocks between the KV cache of a device and a swap pool in pinned host memory. */
export class CudaSwap {
  readonly #cuda: Cuda;
  readonly #blockBytes: number;
  readonly #blocks: BlockMemory;
  readonly #swapBlocks: BlockMemory;

  constructor(cuda: Cuda, layout: KvLayout, blocks: BlockMemory, swapBlocks: BlockMemory) {
    this.#cuda = cuda;
    this.#blockBytes = blockBytes(layout);
    this.#blocks = blocks;
    this.#swapBlocks = swapBlocks;
  }

  /**
   * Copies blocks out and then in, in the order of the stream.
   * @param swapOut pairs [device block, swap block]
   * @param swapIn pairs [swap block, device block]
   * @throws {RangeError} a block that is not there; nothing was copied
   */
  submit(swapOut: Int32Array, swapIn: Int32Array, stream: bigint): void {
    check(swapOut, this.#blocks, this.#swapBlocks);
    check(swapIn, this.#swapBlocks, this.#blocks);
    this.#copy(swapOut, this.#blocks, this.#swapBlocks, stream);
    this.#copy(swapIn, this.#swapBlocks, this.#blocks, stream);
  }

  /** A batch has no order in itself: a pair that writes a block again begins the next batch. */
  #copy(pairs: Int32Array, source: BlockMemory, destination: BlockMemory, stream: bigint): void {
    const room = pairs.length / 2;
    const destinations = new BigUint64Array(room), sources = new BigUint64Array(room);
    const sizes = new BigUint64Array(room).fill(BigInt(this.#blockBytes));
    const written = new Set<number>();
    let count = 0;
    const flush = () => {
      this.#cuda.copyBatch(destinations, sources, sizes, count, stream);
      written.clear();
      count = 0;
    };
    for (let i = 0; i < pairs.length; i += 2) {
      const from = pairs[i], to = pairs[i + 1];
      if (written.has(to)) flush();
      written.add(to);
      sources[count] = source.address + BigInt(from * this.#blockBytes);
      destinations[count++] = destination.address + BigInt(to * this.#blockBytes);
    }
    flush();
  }
}

function check(pairs: Int32Array, source: BlockMemory, destination: BlockMemory): void {
  for (let i = 0; i < pairs.length; i += 2) {
    const from = pairs[i], to = pairs[i + 1];
    const isThere = from >= 0 && from < source.numBlocks && to >= 0 && to < destination.numBlocks;
    if (isThere) continue;
    throw new RangeError(
      `copy of block ${from} of ${source.numBlocks} to block ${to} of ${destination.numBlocks}`,
    );
  }
}
