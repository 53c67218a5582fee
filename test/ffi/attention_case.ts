/** A paged cache filled with known keys and values, and queries over it. */
import type { Random } from "../../src/core/random.ts";
import type {
  CpuKernels,
  KernelAddress,
  KvCacheView,
  StorageType,
} from "../../ffi/cpu_kernels/kernels.ts";
import { Arrays, asStored, attend, normals, relativeError } from "./kernel_reference.ts";

/** Relative error that float32 arithmetic may leave, over keys and values as the cache holds them. */
export const cacheTypeTolerance = 2e-6;

export interface AttentionLayout {
  readonly type: StorageType;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly blockSize: number;
}

/** A sequence of `context` tokens, the last `queries` of which are queried. */
export interface Sequence {
  readonly context: number;
  readonly queries: number;
}

/** One sequence's numbers. */
interface SequenceData extends Sequence {
  readonly blocks: Int32Array;
  /** [queries, heads * headDim] */
  readonly q: Float32Array;
  /** [context, kvHeads * headDim] as the cache holds them. */
  readonly keys: Float64Array;
  readonly values: Float64Array;
}

export class AttentionCase {
  readonly #arrays: Arrays;
  readonly #cache: KvCacheView;
  readonly #sequences: SequenceData[];
  readonly #poolBytes: number;

  /** `scale` multiplies the usual 1 / sqrt(headDim). */
  constructor(
    readonly kernels: CpuKernels,
    random: Random,
    readonly layout: AttentionLayout,
    sequences: readonly Sequence[],
    readonly scale = 1,
  ) {
    const { type, kvHeads, headDim, blockSize } = layout;
    this.#arrays = new Arrays(kernels);
    const layerBytes = 2 * kvHeads * headDim * blockSize * (type === "float32" ? 4 : 2);
    const blockBytes = 2 * layerBytes;
    const blockCounts = sequences.map(({ context }) => Math.ceil(context / blockSize));
    const blockCount = blockCounts.reduce((a, b) => a + b, 0);
    this.#poolBytes = blockCount * blockBytes;
    // NaN wherever nothing is written: what a row must not see, must not reach it.
    const address = kernels.alloc(this.#poolBytes);
    kernels.bytes(address, this.#poolBytes).fill(0xff);
    const shape = { numKvHeads: kvHeads, headDim, blockSize };
    this.#cache = { address, type, blockBytes, layerBytes, ...shape };
    let used = 0;
    this.#sequences = sequences.map((sequence, i) => {
      // From the pool's end, so that a sequence's blocks are out of order.
      const blocks = Int32Array.from({ length: blockCounts[i] }, () => blockCount - ++used);
      return this.#fill(random, sequence, blocks);
    });
  }

  #fill(random: Random, sequence: Sequence, blocks: Int32Array): SequenceData {
    const { type, heads, kvHeads, headDim, blockSize } = this.layout, { context } = sequence;
    const width = kvHeads * headDim;
    const keys = normals(random, context * width), values = normals(random, context * width);
    const q = normals(random, sequence.queries * heads * headDim);
    const slots = Int32Array.from(
      { length: context },
      (_, t) => blocks[Math.floor(t / blockSize)] * blockSize + t % blockSize,
    );
    this.#withArrays([keys, values, slots], ([keysAt, valuesAt, slotsAt]) => {
      this.kernels.kvWrite(this.#cache, 1, keysAt, valuesAt, width, slotsAt, context);
    });
    const stored = { keys: asStored(type, keys).values, values: asStored(type, values).values };
    return { ...sequence, ...stored, blocks, q };
  }

  /** Output rows of the sequences with these indices (all by default), in one batch. */
  run(indices = this.#sequences.map((_, i) => i)): Float32Array {
    return this.#attend(indices.map((i) => this.#sequences[i]));
  }

  /** Output rows of one sequence, computed `chunk` queries at a time. */
  runInChunks(index: number, chunk: number): Float32Array {
    const { q, queries, context, ...rest } = this.#sequences[index];
    const width = q.length / queries, out: number[] = [];
    for (let from = 0; from < queries; from += chunk) {
      const count = Math.min(chunk, queries - from);
      const part = q.slice(from * width, (from + count) * width);
      const seen = context - queries + from + count;
      out.push(...this.#attend([{ ...rest, q: part, queries: count, context: seen }]));
    }
    return Float32Array.from(out);
  }

  /** The rows of sequence `index` in the result of {@linkcode run} over all sequences. */
  rowsOf(all: Float32Array, index: number): Float32Array {
    const starts = [0];
    for (const { q } of this.#sequences) starts.push(starts.at(-1)! + q.length);
    return all.slice(starts[index], starts[index + 1]);
  }

  /** Relative error of the result of {@linkcode run} over all sequences. */
  error(actual: Float32Array): number {
    const expected = this.#sequences.flatMap((sequence) => [...this.#reference(sequence)]);
    return relativeError(actual, expected);
  }

  free(): void {
    this.kernels.free(this.#cache.address, this.#poolBytes);
  }

  #attend(sequences: readonly SequenceData[]): Float32Array {
    const { heads, headDim } = this.layout, width = heads * headDim;
    const starts = [0];
    for (const { queries } of sequences) starts.push(starts.at(-1)! + queries);
    const numTokens = starts.at(-1)!;
    const maxBlocks = Math.max(...sequences.map(({ blocks }) => blocks.length));
    const tables = new Int32Array(sequences.length * maxBlocks);
    sequences.forEach(({ blocks }, i) => tables.set(blocks, i * maxBlocks));
    const contexts = Int32Array.from(sequences, ({ context }) => context);
    const q = Float32Array.from(sequences.flatMap((sequence) => [...sequence.q]));
    const inputs = [q, new Float32Array(q.length), Int32Array.from(starts), contexts, tables];
    return this.#withArrays(inputs, ([qAt, out, queryStarts, contextLens, blockTables]) => {
      const batch = { numSequences: sequences.length, numTokens, queryStarts, contextLens };
      const maxContextLen = Math.max(...contexts);
      this.kernels.attention(
        ...[this.#cache, 1, qAt, width, out, width, heads] as const,
        { ...batch, blockTables, maxBlocks, maxContextLen },
        this.scale / Math.sqrt(headDim),
      );
      return this.#arrays.floats(out, q.length);
    });
  }

  #withArrays<T>(
    arrays: readonly (Float32Array | Int32Array)[],
    use: (addresses: KernelAddress[]) => T,
  ): T {
    const addresses = arrays.map((array) => this.#arrays.put(array));
    try {
      return use(addresses);
    } finally {
      arrays.forEach((array, i) => this.kernels.free(addresses[i], array.byteLength));
    }
  }

  *#reference({ context, queries, q, keys, values }: SequenceData): Generator<number> {
    const { heads, kvHeads, headDim } = this.layout, width = kvHeads * headDim;
    for (let query = 0; query < queries; query++) {
      for (let head = 0; head < heads; head++) {
        const column = Math.floor(head / (heads / kvHeads)) * headDim;
        const rowsOf = (array: Float64Array) =>
          Array.from({ length: context - queries + query + 1 }, (_, t) => {
            const start = t * width + column;
            return array.subarray(start, start + headDim);
          });
        const at = (query * heads + head) * headDim;
        const scale = this.scale / Math.sqrt(headDim);
        yield* attend(q.subarray(at, at + headDim), rowsOf(keys), rowsOf(values), scale);
      }
    }
  }
}
