/** What the kernels of a decoder work on. */

/** How weights, activations that enter a product, and the KV cache are stored. */
export type ElementType = "float32" | "float16" | "bfloat16";

/** How weights of linear layers, or the KV cache, are stored instead: numbers of 8 bits, see fp8.h. */
export type NarrowType = "float8_e4m3";

/** What is stored in another type than that of the kernels. */
export interface NarrowFormats {
  /** Linear layers with scales. */
  readonly weights?: NarrowType;
  readonly cache?: NarrowType;
}

/** Bytes of an element. */
export const elementBytes = { float32: 4, float16: 2, bfloat16: 2, float8_e4m3: 1 } as const;

/** What kernels are called for each type. */
export const suffixes = { float32: "f32", float16: "f16", bfloat16: "bf16" } as const;

/** Tokens of a part of a context; see attention.cu and attention_tiles.h. */
export const partTokens = 256;

/** Bytes that a thread loads at once: rows of weights, activations and heads are whole multiples of them. */
export const vectorBytes = 16;

/** Heads of a decoder, and of its KV cache. */
export interface HeadShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** y = x W^T + bias. */
export interface LinearLayer {
  /** Address of [outputs, inputs]. */
  readonly weights: bigint;
  /** Address of float32 [outputs], by which outputs of weights of 8 bits are multiplied; default 0n, none. */
  readonly scales?: bigint;
  /** Address of float32 [outputs], or 0n. */
  readonly bias: bigint;
  readonly outputs: number;
  readonly inputs: number;
}

/** Rows of activations before their norm. */
export interface NormedRows {
  /** Address of float32 [..., inputs]. */
  readonly x: bigint;
  /** Address of float32 [inputs]. */
  readonly norm: bigint;
  /** Address of int32 [rows]: which rows of x; 0n: the first. */
  readonly indices: bigint;
  readonly rows: number;
  readonly epsilon: number;
}

/** The cache of one layer; see heads.h. */
export interface CacheLayer {
  /** Address of the layer in block 0. */
  readonly address: bigint;
  /** Elements from a block to the next. */
  readonly blockStride: number;
  /** Blocks have `1 << blockShift` tokens. */
  readonly blockShift: number;
}

/** Addresses of int32 arrays that say what the rows of a batch are. */
export interface RowTables {
  readonly rows: number;
  /** [rows] */
  readonly positions: bigint;
  /** [rows]: `block << blockShift | slot` of each row's key and value. */
  readonly slots: bigint;
  /** [rows]: index of each row's sequence in `blockTables`. */
  readonly sequences: bigint;
  /** [sequences, maxBlocks] */
  readonly blockTables: bigint;
  readonly maxBlocks: number;
  /** [numSequences + 1]: first row of each sequence, whose rows follow each other. */
  readonly starts: bigint;
  /** [numSequences]: tokens of each sequence. Its rows are the last of them. */
  readonly lengths: bigint;
  readonly numSequences: number;
  /** Most rows of a sequence. */
  readonly mostRows: number;
  /** Most tokens that a row sees. */
  readonly maxContextLen: number;
}

export interface HeadNorms {
  /** Addresses of float32 [headDim], or 0n. */
  readonly query: bigint;
  readonly key: bigint;
  readonly epsilon: number;
}

export interface AttentionOptions {
  /** A row sees this many tokens at most; 0: all. */
  readonly window: number;
  /** Address of memory for the parts of rows that are computed apart, and its size. */
  readonly partials: bigint;
  readonly partialsBytes: number;
  /** Address of `countersBytes` zeros. */
  readonly counters: bigint;
}

/** Which kernels compute. Each fast one has a plain one, so that a device on which one fails can serve. */
export interface KernelPaths {
  /**
   * Products in the types of 16 bits on tensor cores; else by fused multiply-adds in float32. The two sum in
   * different orders, and differ in bits. What follows changes no bit.
   */
  readonly tensorCores: boolean;
  /** One kernel for what follows on each other in steps of few rows. Needs tensor cores. */
  readonly fused: boolean;
  /**
   * Programmatic dependent launch: a kernel starts, and loads its weights, before the previous kernel has ended
   * (compute capability 9.0).
   */
  readonly programmatic: boolean;
}

/** All fast paths. */
export const fastPaths: KernelPaths = { tensorCores: true, fused: true, programmatic: true };

/** What kernels and their launches depend on. */
export interface KernelDevice {
  readonly multiprocessors: number;
  readonly computeCapability: readonly [major: number, minor: number];
  /** Shared memory that a block of threads can have. */
  readonly sharedMemoryPerBlockBytes: number;
  /** Most stages of the rings of weights in `linear_few.cu`, to compare them; default: what shared memory has room for. */
  readonly mostRingStages?: number;
}
