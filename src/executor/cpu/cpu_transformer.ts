import type {
  CpuKernels,
  Decoder,
  DecoderBatch,
  KernelAddress,
} from "../../../ffi/cpu_kernels/kernels.ts";
import { blockBytes } from "../../kv/layout.ts";
import type { KvPool } from "../../kv/pool/pool.ts";
import type { ExecutorInfo, StepInput } from "../executor.ts";
import { type Slice, type SliceLimits, sliceWords, writeSlice } from "../transformer/slices.ts";
import type { Transformer } from "../transformer/transformer_executor.ts";
import type { CpuLogitsHead } from "./logits.ts";

/** The parts of a loaded model, all in the memory of `kernels`. */
export interface CpuTransformerParts {
  readonly kernels: CpuKernels;
  readonly info: ExecutorInfo;
  readonly decoder: Decoder;
  readonly head: CpuLogitsHead;
  /** Rows that go through the model together. */
  readonly maxRows: number;
  /** See {@linkcode Executor}. */
  readonly pool: KvPool | null;
  /** Block 0 of the KV cache. */
  readonly blocks: KernelAddress;
  /** Block 0 of the swap pool. */
  readonly swapBlocks: KernelAddress;
}

/** A model on the CPU, in the calling thread and the threads of the kernels. */
export class CpuTransformer implements Transformer {
  readonly info: ExecutorInfo;
  readonly pool: KvPool | null;
  readonly maxRows: number;
  readonly head: CpuLogitsHead;
  readonly #parts: CpuTransformerParts;
  readonly #limits: SliceLimits;
  /** Kernel memory for one slice at a time. */
  readonly #slice: KernelAddress;

  constructor(parts: CpuTransformerParts) {
    const { info, kernels, maxRows } = parts;
    this.info = info;
    this.pool = parts.pool;
    this.maxRows = maxRows;
    this.head = parts.head;
    this.#parts = parts;
    this.#limits = { ...info, maxRows, blockSize: info.layout.blockSize };
    this.#slice = kernels.alloc(sliceWords(this.#limits) * 4);
  }

  swap(swapOut: Int32Array, swapIn: Int32Array): void {
    const { blocks, swapBlocks } = this.#parts;
    const { numBlocks, numSwapBlocks } = this.info;
    this.#copyBlocks(swapOut, blocks, numBlocks, swapBlocks, numSwapBlocks);
    this.#copyBlocks(swapIn, swapBlocks, numSwapBlocks, blocks, numBlocks);
  }

  forward(input: StepInput, slice: Slice): void {
    this.head.hidden = this.#parts.decoder.forward(this.#batch(input, slice));
  }

  finish(): void {}

  close(): void {
    this.#parts.kernels.close();
  }

  #batch(input: StepInput, slice: Slice): DecoderBatch {
    const length = sliceWords(this.#limits);
    const bytes = this.#parts.kernels.bytes(this.#slice, length * 4);
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, length);
    const addressOf = (array: Int32Array) =>
      this.#slice + BigInt(array.byteOffset - words.byteOffset);
    const arrays = writeSlice(words, this.#limits, input, slice);
    return {
      ...arrays,
      tokenIds: addressOf(arrays.tokenIds),
      positions: addressOf(arrays.positions),
      slots: addressOf(arrays.slots),
      queryStarts: addressOf(arrays.queryStarts),
      contextLens: addressOf(arrays.contextLens),
      blockTables: addressOf(arrays.blockTables),
    };
  }

  /** Copies whole blocks; `pairs` are [source block, destination block]. */
  #copyBlocks(
    pairs: Int32Array,
    source: KernelAddress,
    numSource: number,
    destination: KernelAddress,
    numDestination: number,
  ): void {
    const bytes = blockBytes(this.info.layout);
    for (let i = 0; i < pairs.length; i += 2) {
      const [from, to] = pairs.subarray(i, i + 2);
      if (from < 0 || from >= numSource || to < 0 || to >= numDestination) {
        throw new RangeError(`copy of block ${from} of ${numSource} to ${to} of ${numDestination}`);
      }
      const at = (address: KernelAddress, block: number) => address + BigInt(block * bytes);
      this.#parts.kernels.copy(at(destination, to), at(source, from), bytes);
    }
  }
}
