import type { Random } from "../../src/core/random.ts";
import type {
  CpuKernels,
  DecoderBatch,
  DecoderShape,
  DecoderWeights,
  KernelAddress,
  KvCacheView,
  Linear,
  StorageType,
} from "../../ffi/cpu_kernels/kernels.ts";
import { Arrays, asStored, normals } from "./kernel_reference.ts";

const vocab = 50, layers = 2, kvHeads = 2, positions = 64, numBlocks = 12;

/** A small random decoder with odd widths, and batches for it. */
export class DecoderCase {
  readonly shape: DecoderShape;
  readonly weights: DecoderWeights;
  readonly #arrays: Arrays;

  /** @param everything with biases and qk-norm, which no family has both of */
  constructor(
    readonly kernels: CpuKernels,
    readonly random: Random,
    readonly type: StorageType,
    readonly everything: boolean,
    readonly headDim = 24,
    readonly blockSize = 16,
  ) {
    this.#arrays = new Arrays(kernels);
    const hiddenSize = 70, numHeads = 6, intermediateSize = 90;
    const width = (numHeads + 2 * kvHeads) * headDim;
    this.shape = {
      ...{ hiddenSize, numHeads, intermediateSize, rmsNormEps: 1e-5 },
      roundActivations: type === "bfloat16",
    };
    const embedding = this.#linear(vocab, hiddenSize).matrix;
    this.weights = {
      embedding,
      layers: Array.from({ length: layers }, () => ({
        inputNorm: this.#vector(hiddenSize),
        qkv: this.#linear(width, hiddenSize),
        queryNorm: everything ? this.#vector(headDim) : 0n,
        keyNorm: everything ? this.#vector(headDim) : 0n,
        output: this.#linear(hiddenSize, numHeads * headDim),
        postAttentionNorm: this.#vector(hiddenSize),
        gateUp: this.#linear(2 * intermediateSize, hiddenSize),
        down: this.#linear(hiddenSize, intermediateSize),
      })),
      finalNorm: this.#vector(hiddenSize),
      lmHead: embedding,
      ropeTable: this.#vector(positions * headDim),
    };
  }

  /** An empty cache for as many blocks as the batches use. */
  cache(): KvCacheView & { readonly byteLength: number } {
    const { headDim, blockSize, type } = this;
    const layerBytes = 2 * kvHeads * headDim * blockSize * (type === "float32" ? 4 : 2);
    const blockBytes = layers * layerBytes, byteLength = numBlocks * blockBytes;
    const address = this.kernels.alloc(byteLength);
    return {
      address,
      type,
      blockBytes,
      layerBytes,
      numKvHeads: kvHeads,
      headDim,
      blockSize,
      byteLength,
    };
  }

  /** Sequences of the given lengths, of which the last `queries` tokens are new. */
  batch(contextLens: readonly number[], queries: readonly number[]): DecoderBatch {
    const maxBlocks = 4, integers = (values: number[]) => this.#arrays.put(Int32Array.from(values));
    const rows = contextLens.flatMap((length, sequence) =>
      Array.from({ length: queries[sequence] }, (_, i) => ({
        sequence,
        position: length - queries[sequence] + i,
      }))
    );
    const block = (sequence: number, position: number) =>
      (sequence * maxBlocks + Math.floor(position / this.blockSize)) * 5 % numBlocks;
    const starts = [0];
    for (const count of queries) starts.push(starts.at(-1)! + count);
    return {
      numTokens: rows.length,
      numSequences: contextLens.length,
      maxBlocks,
      maxContextLen: Math.max(...contextLens),
      tokenIds: integers(rows.map(({ position, sequence }) => (position * 7 + sequence) % vocab)),
      positions: integers(rows.map(({ position }) => position)),
      slots: integers(
        rows.map(({ position, sequence }) =>
          block(sequence, position) * this.blockSize + position % this.blockSize
        ),
      ),
      queryStarts: integers(starts),
      contextLens: integers([...contextLens]),
      blockTables: integers(
        contextLens.flatMap((_, sequence) =>
          Array.from({ length: maxBlocks }, (_, i) => block(sequence, i * this.blockSize))
        ),
      ),
    };
  }

  #vector(length: number): KernelAddress {
    return this.#arrays.put(normals(this.random, length));
  }

  #linear(n: number, k: number): Linear {
    const bytes = asStored(this.type, normals(this.random, n * k)).bytes;
    return {
      matrix: this.kernels.pack(this.type, [bytes], n, k),
      bias: this.everything ? this.#vector(n) : 0n,
    };
  }
}
