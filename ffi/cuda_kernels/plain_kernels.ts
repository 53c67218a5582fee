/** linear.cu and attention.cu: products by fused multiply-adds in float32, for every type. */
import {
  type AttentionOptions,
  type CacheLayer,
  elementBytes,
  type ElementType,
  type HeadNorms,
  type HeadShape,
  type LinearLayer,
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

function linearSharedBytes(type: ElementType, rows: number): number {
  const depth = elementBytes[type] === 2 ? 3 : 2;
  return ranges * depth * (outputsOfBlock + rows) * (chunk * elementBytes[type] + vectorBytes);
}

/** Dynamic shared memory of `attend` in attention.cu. */
function attentionSharedBytes(type: ElementType, shape: HeadShape): number {
  const size = shape.heads / shape.kvHeads;
  const floats = 3 * size * shape.headDim + size * partTokens + 2 * 2 * size;
  return 4 * floats + tileTokens * (shape.headDim * elementBytes[type] + vectorBytes);
}

/** Shared memory that the kernels need of a device. */
export function plainSharedBytes(type: ElementType, shape: HeadShape): number {
  const linear = linearSharedBytes(type, Math.max(...rowVariants));
  return Math.max(linear, attentionSharedBytes(type, shape));
}

export class PlainKernels {
  readonly #type: ElementType;
  readonly #shape: HeadShape;
  readonly #linears: readonly { readonly rows: number; readonly launch: Launcher }[];
  readonly #prepareHeads: Launcher;
  readonly #attend: Launcher;
  readonly #mergeParts: Launcher;

  constructor(modules: KernelModules, type: ElementType, shape: HeadShape) {
    const suffix = suffixes[type];
    this.#type = type;
    this.#shape = shape;
    this.#linears = rowVariants.map((rows) => ({
      rows,
      launch: modules.launcher("linear", `linear_${suffix}_${rows}`, "ppppiiii"),
    }));
    this.#prepareHeads = modules.launcher(
      "attention",
      `prepare_heads_${suffix}`,
      "pppppppliiiif",
    );
    this.#attend = modules.launcher("attention", `attend_${suffix}`, "ppppplppiiiiiif");
    this.#mergeParts = modules.launcher("attention", `merge_parts_${suffix}`, "pppiii");
  }

  /** y (float32) = or += x W^T + bias. */
  linear(layer: LinearLayer, x: bigint, y: bigint, rows: number, mode: "set" | "add"): void {
    const { weights, bias, outputs, inputs } = layer;
    const found = this.#linears.find((variant) => variant.rows >= rows) ?? this.#linears.at(-1)!;
    const shape = {
      grid: [Math.ceil(rows / found.rows), Math.ceil(outputs / outputsOfBlock), 1],
      threads: threadsOfLinear,
      sharedBytes: linearSharedBytes(this.#type, found.rows),
    } as const;
    const adds = mode === "add" ? 1 : 0;
    found.launch(shape, weights, x, bias, y, rows, outputs, inputs, adds);
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
        sharedBytes: attentionSharedBytes(this.#type, this.#shape),
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
