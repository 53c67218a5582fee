/** linear.cu and attention.cu: products by fused multiply-adds in float32, for every type. */
import {
  type AttentionOptions,
  type CacheLayer,
  elementBytes,
  type ElementType,
  type HeadNorms,
  type HeadShape,
  type LinearLayer,
  type NarrowFormats,
  partTokens,
  type RowTables,
  suffixes,
  vectorBytes,
} from "./decoder_types.ts";
import type { KernelModules, Launcher } from "./kernel_modules.ts";

const threadsOfLinear = 256, threadsOfHeads = 128;
const outputsOfBlock = 32, ranges = 8, chunk = 32, tileTokens = 64;
/** Rows of x that share a pass over the weights. */
const rowVariants = [1, 4, 8] as const;

/** @param weightBytes of an element of the weights */
function linearSharedBytes(
  type: ElementType,
  rows: number,
  weightBytes: number = elementBytes[type],
): number {
  const depth = elementBytes[type] === 2 ? 3 : 2;
  const pitch = (bytes: number) => chunk * bytes + vectorBytes;
  return ranges * depth * (outputsOfBlock * pitch(weightBytes) + rows * pitch(elementBytes[type]));
}

/** Dynamic shared memory of `attend` in attention.cu. */
function attentionSharedBytes(type: keyof typeof elementBytes, shape: HeadShape): number {
  const size = shape.heads / shape.kvHeads;
  const floats = 3 * size * shape.headDim + size * partTokens + 2 * 2 * size;
  return 4 * floats + tileTokens * (shape.headDim * elementBytes[type] + vectorBytes);
}

/** Shared memory that the kernels need of a device. */
export function plainSharedBytes(type: ElementType, shape: HeadShape): number {
  const linear = linearSharedBytes(type, Math.max(...rowVariants));
  return Math.max(linear, attentionSharedBytes(type, shape));
}

interface RowVariant {
  readonly rows: number;
  readonly launch: Launcher;
}

export class PlainKernels {
  readonly #type: ElementType;
  readonly #shape: HeadShape;
  readonly #formats: NarrowFormats;
  readonly #linears: readonly RowVariant[];
  /** For weights of 8 bits. */
  readonly #scaled: readonly RowVariant[];
  readonly #quantizeRows: Launcher | null;
  readonly #prepareHeads: Launcher;
  readonly #attend: Launcher;
  readonly #mergeParts: Launcher;

  constructor(
    modules: KernelModules,
    type: ElementType,
    shape: HeadShape,
    formats: NarrowFormats = {},
  ) {
    const suffix = suffixes[type];
    this.#formats = formats;
    this.#type = type;
    this.#shape = shape;
    this.#linears = rowVariants.map((rows) => ({
      rows,
      launch: modules.launcher("linear", `linear_${suffix}_${rows}`, "ppppiiii"),
    }));
    this.#scaled = formats.weights === undefined ? [] : rowVariants.map((rows) => ({
      rows,
      launch: modules.launcher("linear_fp8", `linear_${suffix}_w8_${rows}`, "pppppiiii"),
    }));
    this.#quantizeRows = formats.weights === undefined
      ? null
      : modules.launcher("fp8_weights", `quantize_rows_${suffix}`, "pppi");
    const [file, heads, attend] = formats.cache === undefined
      ? ["attention", `prepare_heads_${suffix}`, `attend_${suffix}`] as const
      : ["attention_fp8", "prepare_heads_kv8", `attend_${suffix}_kv8`] as const;
    this.#prepareHeads = modules.launcher(file, heads, "pppppppliiiif");
    this.#attend = modules.launcher(file, attend, "ppppplppiiiiiif");
    this.#mergeParts = modules.launcher("attention", `merge_parts_${suffix}`, "pppiii");
  }

  /** y (float32) = or += x W^T + bias. */
  linear(layer: LinearLayer, x: bigint, y: bigint, rows: number, mode: "set" | "add"): void {
    const { weights, scales = 0n, bias, outputs, inputs } = layer;
    const variants = scales === 0n ? this.#linears : this.#scaled;
    const found = variants.find((variant) => variant.rows >= rows) ?? variants.at(-1)!;
    const shape = {
      grid: [Math.ceil(rows / found.rows), Math.ceil(outputs / outputsOfBlock), 1],
      threads: threadsOfLinear,
      sharedBytes: linearSharedBytes(this.#type, found.rows, scales === 0n ? undefined : 1),
    } as const;
    const matrix = scales === 0n ? [weights] : [weights, scales];
    found.launch(shape, ...matrix, x, bias, y, rows, outputs, inputs, mode === "add" ? 1 : 0);
  }

  /** codes [rows, inputs] and scales [rows] of weights [rows, inputs]: see fp8_weights.cu. */
  quantizeRows(weights: bigint, codes: bigint, scales: bigint, rows: number, inputs: number): void {
    this.#quantizeRows!({ grid: [rows, 1, 1], threads: 256 }, weights, codes, scales, inputs);
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
    const warps = heads + 2 * kvHeads;
    this.#prepareHeads(
      { grid: [tables.rows, Math.ceil(warps * 32 / threadsOfHeads), 1], threads: threadsOfHeads },
      ...[qkv, norms.query, norms.key, ropeTable, tables.positions, tables.slots],
      ...[cache.address, cache.blockStride, cache.blockShift, kvHeads, headDim, heads],
      norms.epsilon,
    );
  }

  /**
   * output [rows, heads, headDim] = attention of each row to its sequence's tokens up to itself.
   * @param parts into which contexts are cut, each computed by a block of its own; 1: by one block
   */
  attend(
    qkv: bigint,
    tables: RowTables,
    cache: CacheLayer,
    output: bigint,
    parts: number,
    { window, partials }: AttentionOptions,
  ): void {
    const { rows } = tables;
    const { heads, kvHeads, headDim } = this.#shape;
    this.#attend(
      {
        grid: [kvHeads, rows, parts],
        threads: threadsOfHeads,
        sharedBytes: attentionSharedBytes(this.#formats.cache ?? this.#type, this.#shape),
      },
      ...[qkv, tables.positions, tables.sequences, tables.blockTables],
      ...[cache.address, cache.blockStride, output, parts > 1 ? partials : 0n, cache.blockShift],
      ...[kvHeads, headDim, heads, tables.maxBlocks, window, 1 / Math.sqrt(headDim)],
    );
    if (parts === 1) return;
    this.#mergeParts(
      { grid: [heads, rows, 1], threads: threadsOfHeads },
      ...[partials, tables.positions, output, headDim, parts, window],
    );
  }
}
