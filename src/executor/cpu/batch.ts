import type { CpuKernels, DecoderBatch, KernelAddress } from "../../../ffi/cpu_kernels/kernels.ts";
import type { StepInput } from "../executor.ts";

/** Consecutive rows of one sequence of a step. */
export interface SequencePart {
  /** Index of the sequence in the step. */
  readonly index: number;
  /** First row in the step's `tokenIds`. */
  readonly firstRow: number;
  readonly numRows: number;
  /** Tokens of the sequence up to and including this part. */
  readonly contextLen: number;
  /** True when it ends with the sequence's newest token. */
  readonly isLast: boolean;
}

/** Parts that go through the model together: consecutive rows of the step. */
export type Slice = readonly SequencePart[];

/**
 * Cuts a step into slices of at most `maxRows` rows, so that activations have bounded size. A
 * sequence may be cut: its later rows attend to the earlier ones through the cache.
 */
export function sliceStep(input: StepInput, maxRows: number): Slice[] {
  const slices: SequencePart[][] = [];
  let current: SequencePart[] = [];
  let free = 0;
  for (let index = 0; index < input.handles.length; index++) {
    const end = input.queryStarts[index + 1];
    for (let row = input.queryStarts[index]; row < end;) {
      if (free === 0) {
        slices.push(current = []);
        free = maxRows;
      }
      const numRows = Math.min(free, end - row);
      const left = end - row - numRows;
      const contextLen = input.contextLens[index] - left;
      current.push({ index, firstRow: row, numRows, contextLen, isLast: left === 0 });
      row += numRows;
      free -= numRows;
    }
  }
  return slices;
}

export interface BatchLimits {
  /** Rows of a slice. */
  readonly maxRows: number;
  readonly maxModelLen: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly vocabSize: number;
}

/** Kernel memory for one slice at a time. */
export class BatchBuffer {
  readonly #kernels: CpuKernels;
  readonly #limits: BatchLimits;
  /** Block table entries of the longest sequence. */
  readonly #maxTable: number;
  readonly #address: KernelAddress;
  readonly #length: number;

  constructor(kernels: CpuKernels, limits: BatchLimits) {
    this.#kernels = kernels;
    this.#limits = limits;
    this.#maxTable = Math.ceil(limits.maxModelLen / limits.blockSize);
    this.#length = limits.maxRows * (5 + this.#maxTable) + 1;
    this.#address = kernels.alloc(this.#length * 4);
  }

  /**
   * Writes a slice of a step.
   * @throws {RangeError} a token, block or length that the scheduler must never produce
   */
  write(input: StepInput, slice: Slice): DecoderBatch {
    const { blockSize } = this.#limits;
    const numSequences = slice.length;
    const numTokens = slice.reduce((sum, part) => sum + part.numRows, 0);
    const maxContextLen = slice.reduce((max, part) => Math.max(max, part.contextLen), 0);
    const maxBlocks = Math.ceil(maxContextLen / blockSize);
    if (maxBlocks > this.#maxTable || numTokens > this.#limits.maxRows) {
      throw new RangeError(`${numTokens} rows, context of ${maxContextLen} tokens`);
    }
    const bytes = this.#kernels.bytes(this.#address, this.#length * 4);
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, this.#length);
    let used = 0;
    const take = (length: number) => words.subarray(used, used += length);
    const addressOf = (array: Int32Array) =>
      this.#address + BigInt(array.byteOffset - words.byteOffset);

    const tokenIds = take(numTokens);
    const positions = take(numTokens);
    const slots = take(numTokens);
    const queryStarts = take(numSequences + 1);
    const contextLens = take(numSequences);
    const blockTables = take(numSequences * maxBlocks);
    let row = 0;
    for (let i = 0; i < numSequences; i++) {
      const part = slice[i];
      const table = this.#table(input, part);
      blockTables.set(table, i * maxBlocks);
      contextLens[i] = part.contextLen;
      queryStarts[i] = row;
      for (let j = 0; j < part.numRows; j++, row++) {
        const position = part.contextLen - part.numRows + j;
        tokenIds[row] = this.#token(input.tokenIds[part.firstRow + j]);
        positions[row] = position;
        slots[row] = table[Math.floor(position / blockSize)] * blockSize + position % blockSize;
      }
    }
    queryStarts[numSequences] = row;
    return {
      numSequences,
      numTokens,
      tokenIds: addressOf(tokenIds),
      positions: addressOf(positions),
      slots: addressOf(slots),
      queryStarts: addressOf(queryStarts),
      contextLens: addressOf(contextLens),
      blockTables: addressOf(blockTables),
      maxBlocks,
      maxContextLen,
    };
  }

  #token(tokenId: number): number {
    if (tokenId >= 0 && tokenId < this.#limits.vocabSize) return tokenId;
    throw new RangeError(`token ${tokenId} of a vocabulary of ${this.#limits.vocabSize}`);
  }

  #table(input: StepInput, part: SequencePart): Int32Array {
    const start = part.index * input.maxBlocks;
    const used = Math.ceil(part.contextLen / this.#limits.blockSize);
    const table = input.blockTables.subarray(start, start + used);
    for (const block of table) {
      if (block < 0 || block >= this.#limits.numBlocks) {
        throw new RangeError(`block ${block} of ${this.#limits.numBlocks}`);
      }
    }
    return table;
  }
}
