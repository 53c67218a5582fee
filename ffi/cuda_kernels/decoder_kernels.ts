/** The kernels of a decoder: rows.cu, linear.cu and attention.cu, which say what each computes. */
import {
  functionAttributes,
  type Kernel,
  KernelDriver,
  type ParameterType,
} from "../cuda/kernels.ts";
import type { OpenOptions } from "../library.ts";
import attentionPtx from "./attention.ptx" with { type: "text" };
import linearPtx from "./linear.ptx" with { type: "text" };
import rowsPtx from "./rows.ptx" with { type: "text" };

/** How weights, activations that enter a product, and the KV cache are stored. */
export type ElementType = "float32" | "float16" | "bfloat16";

/** Bytes of an element. */
export const elementBytes = { float32: 4, float16: 2, bfloat16: 2 } as const;

/** What kernels are called for each type. */
const suffixes = { float32: "f32", float16: "f16", bfloat16: "bf16" } as const;

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
  /** Address of float32 [outputs], or 0n. */
  readonly bias: bigint;
  readonly outputs: number;
  readonly inputs: number;
}

/** The cache of one layer; see attention.cu. */
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
}

const threadsOfRow = 256, threadsOfLinear = 256, threadsOfHeads = 128;
const outputsOfBlock = 32, ranges = 8, chunk = 32, partTokens = 256, tileTokens = 64;
/** Rows of x that share a pass over the weights. */
const rowVariants = [1, 4, 8] as const;

/** Blocks per multiprocessor below which the parts of a context are computed apart. */
const fewBlocksPerMultiprocessor = 4;

function linearSharedBytes(type: ElementType, rows: number): number {
  const depth = elementBytes[type] === 2 ? 3 : 2;
  return ranges * depth * (outputsOfBlock + rows) * (chunk * elementBytes[type] + vectorBytes);
}

/** Dynamic shared memory of `attend` in attention.cu. */
export function attentionSharedBytes(type: ElementType, shape: HeadShape): number {
  const size = shape.heads / shape.kvHeads;
  const floats = 3 * size * shape.headDim + size * partTokens + 2 * 2 * size;
  return 4 * floats + tileTokens * (shape.headDim * elementBytes[type] + vectorBytes);
}

/** Shared memory that the kernels need of a device. */
export function neededSharedBytes(type: ElementType, shape: HeadShape): number {
  const linear = linearSharedBytes(type, Math.max(...rowVariants));
  return Math.max(linear, attentionSharedBytes(type, shape));
}

/** Kernels of one element type, loaded into the device that is current on the calling thread. */
export class DecoderKernels {
  readonly #driver: KernelDriver;
  readonly #modules: readonly bigint[];
  readonly #type: ElementType;
  readonly #shape: HeadShape;
  readonly #fewBlocks: number;
  readonly #stream: bigint;
  readonly #embed: Kernel;
  readonly #rmsNorm: Kernel;
  readonly #siluMultiply: Kernel;
  readonly #largestLogit: Kernel;
  readonly #linears: readonly { readonly rows: number; readonly kernel: Kernel }[];
  readonly #prepareHeads: Kernel;
  readonly #attend: Kernel;
  readonly #mergeParts: Kernel;

  /**
   * @param stream in whose order everything is launched
   * @throws {LibraryNotFoundError} without libcuda
   * @throws {CudaError} if the driver refuses the kernels
   */
  constructor(
    type: ElementType,
    shape: HeadShape,
    multiprocessors: number,
    stream: bigint,
    options: OpenOptions = {},
  ) {
    const driver = KernelDriver.open(options);
    const [rows, linear, attention] = [rowsPtx, linearPtx, attentionPtx]
      .map((ptx) => driver.loadModule(ptx));
    const kernel = (module: bigint, name: string, parameters: string): Kernel =>
      driver.kernel(module, name, parametersOf(parameters));
    const suffix = suffixes[type];
    this.#driver = driver;
    this.#modules = [rows, linear, attention];
    this.#type = type;
    this.#shape = shape;
    this.#fewBlocks = fewBlocksPerMultiprocessor * multiprocessors;
    this.#stream = stream;
    this.#embed = kernel(rows, `embed_${suffix}`, "pppi");
    this.#rmsNorm = kernel(rows, `rms_norm_${suffix}`, "ppppif");
    this.#siluMultiply = kernel(rows, `silu_multiply_${suffix}`, "ppi");
    this.#largestLogit = kernel(rows, "largest_logit", "ppi");
    this.#linears = rowVariants.map((rows) => ({
      rows,
      kernel: kernel(linear, `linear_${suffix}_${rows}`, "ppppiiii"),
    }));
    this.#prepareHeads = kernel(attention, `prepare_heads_${suffix}`, "pppppppliiiif");
    this.#attend = kernel(attention, `attend_${suffix}`, "ppppplppiiiiiif");
    this.#mergeParts = kernel(attention, `merge_parts_${suffix}`, "pppiii");
    for (const { rows, kernel } of this.#linears) {
      allowShared(kernel, linearSharedBytes(type, rows));
    }
    allowShared(this.#attend, attentionSharedBytes(type, shape));
  }

  /** Bytes of {@linkcode AttentionOptions.partials} with which no batch lacks room. */
  partialsBytes(maxContextLen: number): number {
    const parts = Math.ceil(maxContextLen / partTokens);
    if (parts === 1) return 0;
    const rows = Math.ceil(this.#fewBlocks / this.#shape.kvHeads);
    return this.#bytesOfParts(rows, parts);
  }

  /** y = rows of `table` [tokens, width] as float32. `tokens`: int32 [rows]. */
  embed(table: bigint, tokens: bigint, y: bigint, rows: number, width: number): void {
    this.#launch(this.#embed, [rows, 1, 1], threadsOfRow, 0, [table, tokens, y, width]);
  }

  /**
   * y = the RMS norm of rows of `x`, float32 [..., width].
   * @param indices int32 [rows]: which rows of x; 0n: the first
   */
  rmsNorm(
    x: bigint,
    weight: bigint,
    indices: bigint,
    y: bigint,
    rows: number,
    width: number,
    epsilon: number,
  ): void {
    const values = [x, weight, indices, y, width, epsilon];
    this.#launch(this.#rmsNorm, [rows, 1, 1], threadsOfRow, 0, values);
  }

  /** y (float32) = or += x W^T + bias. A row of y depends on no other row of x. */
  linear(layer: LinearLayer, x: bigint, y: bigint, rows: number, mode: "set" | "add"): void {
    const { weights, bias, outputs, inputs } = layer;
    const found = this.#linears.find((variant) => variant.rows >= rows) ?? this.#linears.at(-1)!;
    const grid = [Math.ceil(rows / found.rows), Math.ceil(outputs / outputsOfBlock), 1] as const;
    const values = [weights, x, bias, y, rows, outputs, inputs, mode === "add" ? 1 : 0];
    const sharedBytes = linearSharedBytes(this.#type, found.rows);
    this.#launch(found.kernel, grid, threadsOfLinear, sharedBytes, values);
  }

  /** Norms and rotates queries and keys of `qkv` in place; writes keys and values to the cache. */
  prepareHeads(
    qkv: bigint,
    norms: HeadNorms,
    ropeTable: bigint,
    tables: RowTables,
    cache: CacheLayer,
  ): void {
    const { heads, kvHeads, headDim } = this.#shape;
    const grid = [tables.rows, Math.ceil((heads + 2 * kvHeads) * 32 / threadsOfHeads), 1] as const;
    this.#launch(this.#prepareHeads, grid, threadsOfHeads, 0, [
      ...[qkv, norms.query, norms.key, ropeTable, tables.positions, tables.slots],
      ...[cache.address, cache.blockStride, cache.blockShift, kvHeads, headDim, heads],
      norms.epsilon,
    ]);
  }

  /** output [rows, heads, headDim] = attention of each row to its sequence's tokens up to itself. */
  attend(
    qkv: bigint,
    tables: RowTables,
    cache: CacheLayer,
    output: bigint,
    { window, partials, partialsBytes }: AttentionOptions,
  ): void {
    const { rows, maxContextLen } = tables;
    const { heads, kvHeads, headDim } = this.#shape;
    const parts = Math.ceil(maxContextLen / partTokens);
    const hasRoom = this.#bytesOfParts(rows, parts) <= partialsBytes;
    const isApart = parts > 1 && rows * kvHeads < this.#fewBlocks && hasRoom;
    const grid = [kvHeads, rows, isApart ? parts : 1] as const;
    const sharedBytes = attentionSharedBytes(this.#type, this.#shape);
    this.#launch(this.#attend, grid, threadsOfHeads, sharedBytes, [
      ...[qkv, tables.positions, tables.sequences, tables.blockTables],
      ...[cache.address, cache.blockStride, output, isApart ? partials : 0n, cache.blockShift],
      ...[kvHeads, headDim, heads, tables.maxBlocks, window, 1 / Math.sqrt(headDim)],
    ]);
    if (!isApart) return;
    const values = [partials, tables.positions, output, headDim, parts, window];
    this.#launch(this.#mergeParts, [heads, rows, 1], threadsOfHeads, 0, values);
  }

  /** y [rows, width] = silu(gate) * up of float32 rows gate | up. */
  siluMultiply(gateUp: bigint, y: bigint, rows: number, width: number): void {
    this.#launch(this.#siluMultiply, [rows, 1, 1], threadsOfRow, 0, [gateUp, y, width]);
  }

  /** indices, int32 [rows] = the largest of each row; -1 where there is NaN or it is not finite. */
  largestLogit(logits: bigint, indices: bigint, rows: number, width: number): void {
    this.#launch(this.#largestLogit, [rows, 1, 1], threadsOfRow, 0, [logits, indices, width]);
  }

  /** Unloads the kernels, once no launch is under way. */
  close(): void {
    for (const module of this.#modules) this.#driver.unloadModule(module);
  }

  #bytesOfParts(rows: number, parts: number): number {
    return rows * this.#shape.heads * parts * (this.#shape.headDim + 2) * 4;
  }

  #launch(
    kernel: Kernel,
    grid: readonly [number, number, number],
    threads: number,
    sharedBytes: number,
    values: readonly (bigint | number)[],
  ): void {
    kernel.launch({ grid, block: [threads, 1, 1], stream: this.#stream, sharedBytes }, values);
  }
}

const usualSharedBytes = 48 << 10;

function allowShared(kernel: Kernel, bytes: number): void {
  if (bytes > usualSharedBytes) {
    kernel.setAttribute(functionAttributes.maxDynamicSharedBytes, bytes);
  }
}

const parameterTypes: Readonly<Record<string, ParameterType>> = {
  p: "pointer",
  l: "i64",
  i: "i32",
  f: "f32",
};

/** Types of parameters by their letters, one each. */
function parametersOf(letters: string): ParameterType[] {
  return Array.from(letters, (letter) => parameterTypes[letter]);
}
