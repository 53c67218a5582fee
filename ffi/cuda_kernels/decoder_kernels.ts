/**
 * The operations of a decoder on a device. Each takes the fastest kernels that compute it; which ones changes
 * no bit, but for `KernelPaths.tensorCores`. The sources say what the kernels compute and in what order.
 */
import type { OpenOptions } from "../library.ts";
import {
  type AttentionOptions,
  type CacheLayer,
  elementBytes,
  type ElementType,
  fastPaths,
  type HeadNorms,
  type HeadShape,
  type KernelDevice,
  type KernelPaths,
  type LinearLayer,
  type NarrowFormats,
  type NormedRows,
  partTokens,
  type RowTables,
} from "./decoder_types.ts";
import type { KernelFile } from "./kernel_images.ts";
import { KernelModules } from "./kernel_modules.ts";
import type { LibraryLinear, RowRange } from "./library_linear.ts";
import { PlainKernels, plainSharedBytes } from "./plain_kernels.ts";
import { RowKernels, type RowParts } from "./row_kernels.ts";
import { hasTensorKernels, TensorKernels, tensorSharedBytes } from "./tensor_kernels.ts";

export * from "./decoder_types.ts";
export type { RowParts } from "./row_kernels.ts";

/** Blocks per multiprocessor below which the parts of a context are computed apart. */
const fewBlocksPerMultiprocessor = 4;

/** Shared memory that the kernels need of a device. */
export function neededSharedBytes(
  type: ElementType,
  shape: HeadShape,
  paths: KernelPaths = fastPaths,
): number {
  // Kernels for types of 8 bits need no more.
  const isTensor = paths.tensorCores && hasTensorKernels(type, shape);
  return isTensor ? tensorSharedBytes(shape) : plainSharedBytes(type, shape);
}

/** The modules that are needed. Layers without scales, such as the head, are there beside those with scales. */
function filesOf(isTensor: boolean, { weights, cache }: NarrowFormats): KernelFile[] {
  return [
    ...["rows", "linear", "attention"] as const,
    ...weights ? ["linear_fp8", "fp8_weights"] as const : [],
    ...cache ? ["attention_fp8"] as const : [],
    ...isTensor ? ["linear_few", "linear_many"] as const : [],
    ...isTensor && weights ? ["linear_few_fp8", "linear_many_fp8"] as const : [],
    ...isTensor && cache ? ["decode_attention_fp8", "prompt_attention_fp8"] as const : [],
    ...isTensor && !cache ? ["decode_attention", "prompt_attention"] as const : [],
  ];
}

/** Kernels of one element type, loaded into the device that is current on the calling thread. */
export class DecoderKernels {
  /** Bytes of {@linkcode AttentionOptions.counters}, which are zeros at first. */
  readonly countersBytes: number;
  /** Whether a kernel may start while the kernel before it still runs. */
  readonly isProgrammatic: boolean;
  /** Why the driver compiles the kernels, although the program has machine code for the device; null: it does not. */
  readonly nativeRefusal: string | null;
  readonly #modules: KernelModules;
  /** Of weights and activations. */
  readonly type: ElementType;
  readonly #shape: HeadShape;
  readonly #fewBlocks: number;
  readonly #fused: boolean;
  readonly #rows: RowKernels;
  readonly #plain: PlainKernels;
  readonly #tensor: TensorKernels | null;
  #library: LibraryLinear | null = null;
  /** Ascending, apart from each other. */
  #libraryRows: readonly RowRange[] = [];

  /**
   * @param stream in whose order everything is launched
   * @throws {LibraryNotFoundError} without libcuda
   * @throws {CudaError} if the driver refuses the kernels
   */
  constructor(
    type: ElementType,
    shape: HeadShape,
    device: KernelDevice,
    stream: bigint,
    paths: KernelPaths = fastPaths,
    options: OpenOptions = {},
    formats: NarrowFormats = {},
  ) {
    const isTensor = paths.tensorCores && hasTensorKernels(type, shape);
    const modules = new KernelModules(
      filesOf(isTensor, formats),
      device,
      stream,
      paths.programmatic,
      options,
    );
    this.#modules = modules;
    this.type = type;
    this.#shape = shape;
    this.#fewBlocks = fewBlocksPerMultiprocessor * device.multiprocessors;
    this.#fused = paths.fused;
    this.#rows = new RowKernels(modules, type);
    this.#plain = new PlainKernels(modules, type, shape, formats);
    this.#tensor = isTensor ? new TensorKernels(modules, type, shape, device, formats) : null;
    this.countersBytes = 4 * Math.max(1, this.#fewBlocks);
    this.isProgrammatic = paths.programmatic && modules.isNative;
    this.nativeRefusal = modules.nativeRefusal;
  }

  /** Bytes of {@linkcode AttentionOptions.partials} with which no batch lacks room. */
  partialsBytes(maxContextLen: number): number {
    const parts = Math.ceil(maxContextLen / partTokens);
    if (parts === 1) return 0;
    const rows = Math.ceil(this.#fewBlocks / this.#shape.kvHeads);
    return this.#bytesOfParts(rows, parts);
  }

  /** Lets {@linkcode computeByLibrary} take effect. Closed with the kernels. */
  useLibrary(library: LibraryLinear): void {
    this.#library = library;
  }

  /**
   * From now on a library computes these rows of linear layers. Other rows keep their bits. Behind the last
   * row, matrices have room for as many rows as the library computes at a time.
   * @param rows ascending, and apart from each other
   */
  computeByLibrary(rows: readonly RowRange[]): void {
    this.#libraryRows = this.#library === null ? [] : rows;
  }

  /** y = rows of `table` [tokens, width] as float32. `tokens`: int32 [rows]. */
  embed(table: bigint, tokens: bigint, y: bigint, rows: number, width: number): void {
    this.#rows.embed(table, tokens, y, rows, width);
  }

  /**
   * y (float32) = norm(x) W^T + bias.
   * @param normed room for the rows of x after their norm, in the kernels' type
   */
  normLinear(from: NormedRows, layer: LinearLayer, y: bigint, normed: bigint): void {
    if (this.#isFew(from.rows, layer)) return this.#tensor!.normLinear(from, layer, y);
    this.rmsNorm(from, normed, layer.inputs);
    this.linear(layer, normed, y, from.rows, "set");
  }

  /**
   * y (of the kernels' type) = silu(gate) * up of norm(x) W^T = gate | up.
   * @param normed room for the rows of x after their norm, in the kernels' type
   * @param gateUp room for float32 [rows, outputs]
   */
  normGateUp(
    from: NormedRows,
    layer: LinearLayer,
    y: bigint,
    normed: bigint,
    gateUp: bigint,
  ): void {
    // The fused kernel knows no bias.
    if (layer.bias === 0n && this.#isFew(from.rows, layer)) {
      return this.#tensor!.normGateUp(from, layer, y);
    }
    this.rmsNorm(from, normed, layer.inputs);
    this.linear(layer, normed, gateUp, from.rows, "set");
    this.siluMultiply(gateUp, y, from.rows, layer.outputs / 2);
  }

  /** y (float32) += x W^T + bias. */
  linearAdd(layer: LinearLayer, x: bigint, y: bigint, rows: number): void {
    if (this.#isFew(rows, layer)) this.#tensor!.linearAdd(layer, x, y, rows);
    else this.linear(layer, x, y, rows, "add");
  }

  /**
   * Norms and rotates the heads of `qkv`, in place or not, writes keys and values to the cache, and
   * output [rows, heads, headDim] = attention of each row to its sequence's tokens up to itself.
   */
  attention(
    qkv: bigint,
    norms: HeadNorms,
    ropeTable: bigint,
    tables: RowTables,
    cache: CacheLayer,
    output: bigint,
    options: AttentionOptions,
  ): void {
    if (this.#fused && this.#tensor !== null && tables.mostRows === 1) {
      const parts = this.#partsApart(tables, options);
      this.#tensor.decodeAttention(qkv, norms, ropeTable, tables, cache, output, parts, options);
      return;
    }
    this.prepareHeads(qkv, norms, ropeTable, tables, cache);
    this.attend(qkv, tables, cache, output, options);
  }

  /** y = the RMS norm of rows of width `width`, in the kernels' type. */
  rmsNorm({ x, norm, indices, rows, epsilon }: NormedRows, y: bigint, width: number): void {
    this.#rows.rmsNorm(x, norm, indices, y, rows, width, epsilon);
  }

  /** y (float32) = or += x W^T + bias. A row of y depends on no other row of x. */
  linear(layer: LinearLayer, x: bigint, y: bigint, rows: number, mode: "set" | "add"): void {
    const kernels = this.#tensor ?? this.#plain;
    if (this.#libraryRows.length === 0) return kernels.linear(layer, x, y, rows, mode);
    const own = (first: number, end: number) => {
      if (first === end) return;
      const [from, to] = [
        first * layer.inputs * elementBytes[this.type],
        first * layer.outputs * 4,
      ];
      kernels.linear(layer, x + BigInt(from), y + BigInt(to), end - first, mode);
    };
    // In the order of rows: the library writes behind its own, and those are computed after it.
    let done = 0;
    for (const range of this.#libraryRows) {
      own(done, range.first);
      this.#library!.linear(this.#rows, layer, x, y, range, mode);
      done = range.first + range.count;
    }
    own(done, rows);
  }

  /** Norms and rotates queries and keys of `qkv` in place; writes keys and values to the cache. */
  prepareHeads(
    qkv: bigint,
    norms: HeadNorms,
    ropeTable: bigint,
    tables: RowTables,
    cache: CacheLayer,
  ): void {
    this.#plain.prepareHeads(qkv, norms, ropeTable, tables, cache);
  }

  /** output [rows, heads, headDim] = attention of rows whose heads are prepared and in the cache. */
  attend(
    qkv: bigint,
    tables: RowTables,
    cache: CacheLayer,
    output: bigint,
    options: AttentionOptions,
  ): void {
    if (this.#tensor !== null) {
      this.#tensor.promptAttention(qkv, tables, cache, output, options);
    } else {
      const parts = this.#partsApart(tables, options);
      this.#plain.attend(qkv, tables, cache, output, parts, options);
    }
  }

  /**
   * codes [rows, inputs] of 8 bits and scales, float32 [rows], of weights [rows, inputs] of the kernels' type. Needs
   * `formats.weights`.
   */
  quantizeRows(weights: bigint, codes: bigint, scales: bigint, rows: number, inputs: number): void {
    this.#plain.quantizeRows(weights, codes, scales, rows, inputs);
  }

  /** y [rows, width] = silu(gate) * up of float32 rows gate | up. */
  siluMultiply(gateUp: bigint, y: bigint, rows: number, width: number): void {
    this.#rows.siluMultiply(gateUp, y, rows, width);
  }

  /** See {@linkcode RowKernels.moveParts}. */
  moveParts(from: RowParts, to: RowParts, width: number, rows: number, parts: number): void {
    this.#rows.moveParts(from, to, width, rows, parts);
  }

  /** indices, int32 [rows] = the largest of each row; -1 where there is NaN or it is not finite. */
  largestLogit(logits: bigint, indices: bigint, rows: number, width: number): void {
    this.#rows.largestLogit(logits, indices, rows, width);
  }

  /** Unloads the kernels, once no launch is under way. */
  close(): void {
    this.#library?.close();
    this.#modules.close();
  }

  #isFew(rows: number, layer: LinearLayer): boolean {
    return this.#fused && this.#libraryRows.length === 0 && this.#tensor !== null &&
      this.#tensor.isFew(rows, layer);
  }

  /** Parts of contexts that get a block each; 1 where a block does all parts of a row. */
  #partsApart({ rows, maxContextLen }: RowTables, { partialsBytes }: AttentionOptions): number {
    const parts = Math.ceil(maxContextLen / partTokens);
    const hasRoom = this.#bytesOfParts(rows, parts) <= partialsBytes;
    return rows * this.#shape.kvHeads < this.#fewBlocks && hasRoom ? parts : 1;
  }

  #bytesOfParts(rows: number, parts: number): number {
    return rows * this.#shape.heads * parts * (this.#shape.headDim + 2) * 4;
  }
}
