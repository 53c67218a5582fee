/**
 * Operations of a paged-KV decoder on the CPU. Two implementations: shared libraries built from
 * `kernels.c` (AMX, AVX-512 BF16, AVX-512, AVX2, NEON) called through FFI, and the same source as WASM.
 *
 * All memory that operations touch belongs to the kernel set: `alloc` allocates it, `bytes` gives a
 * view of it. Matrices are row-major with leading dimensions in elements. Activations are float32.
 *
 * Batch invariance: a row of a result depends on that row's inputs only, bit for bit, never on the
 * number or the values of the other rows.
 */

/** A kernel set cannot be loaded or used as asked; the message says what to do. */
export class KernelError extends Error {
  override name = "KernelError";
}

/** An address in the kernel set's memory; 0n is null. */
export type KernelAddress = bigint;

/** Kernel sets, the fastest first. "amx" is AVX-512 plus tile instructions for bfloat16 products. */
export const kernelSets = ["amx", "avx512bf16", "avx512", "avx2", "neon", "wasm"] as const;
export type KernelSet = typeof kernelSets[number];

/** Element type of stored weights and of the KV cache. */
export type StorageType = "float32" | "float16" | "bfloat16";

/** Weights of one linear layer, packed for this kernel set: y = x W^T + bias, W is [n, k]. */
export interface PackedMatrix {
  readonly address: KernelAddress;
  readonly type: StorageType;
  readonly n: number;
  readonly k: number;
  readonly byteLength: number;
}

/** The paged cache as the attention operations see it (`cpu-kt` of `src/kv/layout.ts`). */
export interface KvCacheView {
  readonly address: KernelAddress;
  readonly type: StorageType;
  readonly blockBytes: number;
  readonly layerBytes: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly blockSize: number;
}

/** A batch of sequences with different numbers of tokens (see `StepInput`). Addresses of int32 arrays. */
export interface AttentionBatch {
  readonly numSequences: number;
  readonly numTokens: number;
  /** [numSequences + 1] */
  readonly queryStarts: KernelAddress;
  /** [numSequences] including this step's tokens */
  readonly contextLens: KernelAddress;
  /** [numSequences, maxBlocks] */
  readonly blockTables: KernelAddress;
  readonly maxBlocks: number;
  /** Largest of contextLens. */
  readonly maxContextLen: number;
}

/** A batch as a decoder reads it. Addresses of int32 arrays. */
export interface DecoderBatch extends AttentionBatch {
  /** [numTokens] */
  readonly tokenIds: KernelAddress;
  /** [numTokens] */
  readonly positions: KernelAddress;
  /** [numTokens]: block * blockSize + offset of each new token. */
  readonly slots: KernelAddress;
}

/** A linear layer; `bias` is float32 [n] or 0n. */
export interface Linear {
  readonly matrix: PackedMatrix;
  readonly bias: KernelAddress;
}

/** Weights of a decoder's layer; norms are float32 vectors. */
export interface DecoderLayer {
  readonly inputNorm: KernelAddress;
  /** Query, key and value stacked. */
  readonly qkv: Linear;
  /** [headDim], or 0n without qk-norm. */
  readonly queryNorm: KernelAddress;
  readonly keyNorm: KernelAddress;
  readonly output: Linear;
  readonly postAttentionNorm: KernelAddress;
  /** Gate and up stacked. */
  readonly gateUp: Linear;
  readonly down: Linear;
}

export interface DecoderWeights {
  readonly embedding: PackedMatrix;
  readonly layers: readonly DecoderLayer[];
  readonly finalNorm: KernelAddress;
  /** Weights that `forward` prefetches at its end. The embedding itself if the two are tied. */
  readonly lmHead: PackedMatrix;
  /** float32 [positions, headDim], see `CpuKernels.rope`. */
  readonly ropeTable: KernelAddress;
}

/** Sizes of a decoder that its weights and cache do not tell. */
export interface DecoderShape {
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly intermediateSize: number;
  readonly rmsNormEps: number;
  /** Whether inputs of matrix products are rounded to bfloat16, see `CpuKernels.gemm`. */
  readonly roundActivations: boolean;
}

/** The layers of a decoder-only transformer (Llama, Mistral, Qwen2, Qwen3). */
export interface Decoder {
  /**
   * Runs the batch and writes its keys and values to the cache.
   * @returns address of the final hidden states, float32 [numTokens, hidden], until the next call
   */
  forward(batch: DecoderBatch): KernelAddress;
}

export interface CpuKernels {
  readonly name: KernelSet;
  readonly threads: number;

  /**
   * Allocates zeroed memory, 64-byte aligned; large memory is aligned to huge pages.
   * @throws {KernelError} the memory is exhausted
   */
  alloc(byteLength: number): KernelAddress;
  free(address: KernelAddress, byteLength: number): void;
  /** View of `byteLength` bytes; do not keep it across `alloc` (WASM memory can move). */
  bytes(address: KernelAddress, byteLength: number): Uint8Array;
  copy(destination: KernelAddress, source: KernelAddress, byteLength: number): void;

  /** Reads memory with all threads, to measure the streaming read bandwidth. */
  readMemory(address: KernelAddress, byteLength: number): number;

  /** Bytes that `pack` needs for a [n, k] matrix. */
  packedBytes(type: StorageType, n: number, k: number): number;
  /**
   * Packs W [n, k] given as row-major pieces stacked along n (Q, K and V of one layer, say). `rows`
   * may live anywhere (a mapped file). `k` must be even.
   */
  pack(type: StorageType, rows: readonly Uint8Array[], n: number, k: number): PackedMatrix;

  /**
   * y[m, n] = x[m, k] W^T + bias. With `roundActivations` x is rounded to bfloat16 first (for
   * bfloat16 weights, on every kernel set); otherwise it is used as float32. bias may be 0n. `next` are
   * the weights of the product that follows: idle threads prefetch them.
   */
  gemm(
    x: KernelAddress,
    ldx: number,
    weights: PackedMatrix,
    bias: KernelAddress,
    y: KernelAddress,
    ldy: number,
    m: number,
    roundActivations: boolean,
    next?: PackedMatrix,
  ): void;
  /** y[m, k] = row `ids[i]` of the packed embedding table [vocab, k]; ids: int32 [m]. */
  embed(table: PackedMatrix, ids: KernelAddress, y: KernelAddress, m: number): void;
  /** y = x / sqrt(mean(x^2) + eps) * weight, by rows [m, k]; weight float32 [k]. */
  rmsnorm(
    x: KernelAddress,
    weight: KernelAddress,
    y: KernelAddress,
    m: number,
    k: number,
    eps: number,
  ): void;
  /** x += residual, then y = rmsnorm(x): the add that precedes every norm but the first. */
  addRmsnorm(
    x: KernelAddress,
    residual: KernelAddress,
    weight: KernelAddress,
    y: KernelAddress,
    m: number,
    k: number,
    eps: number,
  ): void;
  /**
   * RMS norm of each head in place (Qwen3's qk-norm): x has `m` rows of stride `ldx`, `heads` heads
   * of `headDim` from its start; weight float32 [headDim].
   */
  headRmsnorm(
    x: KernelAddress,
    ldx: number,
    weight: KernelAddress,
    m: number,
    heads: number,
    headDim: number,
    eps: number,
  ): void;
  /**
   * Rotary embedding in place, half-split (HF Llama): `table` float32 [positions, headDim]: cos of
   * the headDim/2 frequencies, then sin; `positions` int32 [m].
   */
  rope(
    x: KernelAddress,
    ldx: number,
    positions: KernelAddress,
    table: KernelAddress,
    m: number,
    heads: number,
    headDim: number,
  ): void;
  /** y[m, f] = silu(gate) * up, with gateUp [m, 2f] = gate | up. */
  siluMul(gateUp: KernelAddress, y: KernelAddress, m: number, f: number): void;
  /** Writes keys and values [m, numKvHeads * headDim] (stride `ld`) to `slots` int32 [m]: block * blockSize + offset. */
  kvWrite(
    cache: KvCacheView,
    layer: number,
    keys: KernelAddress,
    values: KernelAddress,
    ld: number,
    slots: KernelAddress,
    m: number,
  ): void;
  /**
   * Causal attention over the paged cache, prefill and decode rows mixed: q [tokens, heads*headDim]
   * stride ldq, out likewise. GQA: head h reads KV head floor(h / (heads / numKvHeads)).
   */
  attention(
    cache: KvCacheView,
    layer: number,
    q: KernelAddress,
    ldq: number,
    out: KernelAddress,
    ldo: number,
    heads: number,
    batch: AttentionBatch,
    scale: number,
  ): void;
  /** Index of the largest of x[k] by rows, the lowest on ties, -1 if any is NaN; out int32 [m]. */
  argmax(x: KernelAddress, ldx: number, out: KernelAddress, m: number, k: number): void;
  /** A decoder of these weights: the operations above in one call. `maxRows`: tokens of a batch. */
  decoder(
    shape: DecoderShape,
    weights: DecoderWeights,
    cache: KvCacheView,
    maxRows: number,
  ): Decoder;
  /** Frees all memory and ends the threads. The kernel set must not be used afterwards. */
  close(): void;
}
