/** linear_few.cu, linear_many.cu, decode_attention.cu, prompt_attention.cu: the types of 16 bits. */
import {
  type AttentionOptions,
  type CacheLayer,
  type ElementType,
  type HeadNorms,
  type HeadShape,
  type KernelDevice,
  type LinearLayer,
  type NormedRows,
  type RowTables,
  suffixes,
} from "./decoder_types.ts";
import type { KernelModules, Launcher } from "./kernel_modules.ts";

/** Heads and groups of the attention kernels: see attention_tiles.h. */
const headSizes = [64, 128] as const, mostGroup = 16;
const tileTokens = 64, queriesOfBlock = 64, scorePitch = tileTokens + 8;
/** Outputs and rows of linear_few.cu, and how deep its rings can be, in the order of preference. */
const tileOutputs = 8, mostFewRows = 8, ringDepths = [6, 4, 2] as const;
const warps = 8, chunkInputs = 128, ringStageBytes = 8 * chunkInputs * 2;
/** Tiles of linear_many.cu, and shared memory of a block. */
const manySharedBytes = { 64: 4 * 2 * 64 * 128, 128: 3 * 2 * 128 * 128 } as const;
/**
 * Shared memory of a block so that it fits into a multiprocessor of sm_90 beside a block of the next kernel,
 * which begins before this one has ended.
 */
const neighbourSharedBytes = 112 << 10;

/** Whether the kernels can compute this. */
export function hasTensorKernels(
  type: ElementType,
  { heads, kvHeads, headDim }: HeadShape,
): boolean {
  const group = heads / kvHeads;
  return type !== "float32" && headDim <= headSizes.at(-1)! && headDim % 8 === 0 &&
    group <= mostGroup;
}

/** Bytes of a tile of keys and values in shared memory, in heads of `size`. */
const tileBytes = (size: number) => 2 * tileTokens * (size + 8) * 2;

/** Shared memory that the kernels need of a device. */
export function tensorSharedBytes({ headDim }: HeadShape): number {
  return Math.max(...Object.values(manySharedBytes), decodeSharedBytes(sizeOf(headDim), 2));
}

function sizeOf(headDim: number): number {
  return headSizes.find((size) => size >= headDim)!;
}

function decodeSharedBytes(size: number, stages: number): number {
  return stages * tileBytes(size) + 18 * (size + 8) * 2 + 16 * scorePitch * 4;
}

/** Stages of the ring of decode_attention.cu, where a block can have so much shared memory. */
function decodeStages(size: number, sharedMemoryPerBlockBytes: number): number {
  const most = Math.min(neighbourSharedBytes, sharedMemoryPerBlockBytes);
  return decodeSharedBytes(size, 3) <= most ? 3 : 2;
}

/** Stages of linear_few.cu's rings of weights; undefined: shared memory has no room for `rows` rows. */
function ringDepth(
  rows: number,
  inputs: number,
  sharedMemoryPerBlockBytes: number,
): number | undefined {
  const most = Math.min(neighbourSharedBytes, sharedMemoryPerBlockBytes);
  return ringDepths.find((depth) => fewSharedBytes(rows, inputs, depth) <= most);
}

/** What a block takes and has under way: for the table of kernels. */
export interface Footprint {
  readonly threads: number;
  /** Dynamic shared memory. */
  readonly sharedBytes: number;
  /** Bytes of weights, keys and values that are loading while a block computes. */
  readonly loadingBytes: number;
}

/** Footprint of a tensor-core kernel by its name, for one row of `inputs` where it matters. */
export function footprintOf(
  name: string,
  inputs: number,
  sharedMemoryPerBlockBytes: number,
): Footprint | null {
  const size = Number(/_(\d+)$/.exec(name)?.[1]);
  if (name.startsWith("decode_attention")) {
    const stages = decodeStages(size, sharedMemoryPerBlockBytes);
    const loadingBytes = (stages - 1) * 2 * tileTokens * size * 2;
    return { threads: 128, sharedBytes: decodeSharedBytes(size, stages), loadingBytes };
  }
  if (name.startsWith("prompt_attention")) {
    const loadingBytes = 2 * tileTokens * size * 2;
    return { threads: 128, sharedBytes: 2 * tileBytes(size), loadingBytes };
  }
  if (name.startsWith("linear_many")) {
    const sharedBytes = manySharedBytes[size as 64 | 128], stages = size === 64 ? 4 : 3;
    return { threads: 256, sharedBytes, loadingBytes: sharedBytes * (stages - 1) / stages / 2 };
  }
  if (/^(norm_linear|norm_gate_up|linear_add)_/.test(name)) {
    const depth = ringDepth(1, inputs, sharedMemoryPerBlockBytes)!;
    const sharedBytes = fewSharedBytes(1, inputs, depth);
    return { threads: 256, sharedBytes, loadingBytes: warps * (depth - 1) * ringStageBytes };
  }
  return null;
}

function fewSharedBytes(rows: number, inputs: number, depth: number): number {
  const xPitch = Math.ceil(inputs / chunkInputs) * chunkInputs + 32;
  return warps * depth * ringStageBytes + 2 * warps * tileOutputs * mostFewRows * 4 +
    rows * xPitch * 2;
}

export class TensorKernels {
  readonly #shape: HeadShape;
  readonly #device: KernelDevice;
  readonly #normLinear: Launcher;
  readonly #normGateUp: Launcher;
  readonly #linearAdd: Launcher;
  readonly #many: Readonly<Record<64 | 128, Launcher>>;
  readonly #decodeAttention: Launcher;
  readonly #promptAttention: Launcher;

  constructor(modules: KernelModules, type: ElementType, shape: HeadShape, device: KernelDevice) {
    const suffix = suffixes[type], size = sizeOf(shape.headDim);
    const waits = true;
    const few = (name: string, parameters: string) =>
      modules.launcher("linear_few", `${name}_${suffix}`, parameters, waits);
    const many = (tile: number) =>
      modules.launcher("linear_many", `linear_many_${suffix}_${tile}`, "ppppiiii", waits);
    this.#shape = shape;
    this.#device = device;
    this.#normLinear = few("norm_linear", "ppppppiiifi");
    this.#normGateUp = few("norm_gate_up", "ppppiiifi");
    this.#linearAdd = few("linear_add", "ppppiiii");
    this.#many = { 64: many(64), 128: many(128) };
    this.#decodeAttention = modules.launcher(
      "decode_attention",
      `decode_attention_${suffix}_${size}`,
      "pppppppplpppiiiiiiiff",
      waits,
    );
    this.#promptAttention = modules.launcher(
      "prompt_attention",
      `prompt_attention_${suffix}_${size}`,
      "ppppplpiiiiiif",
    );
  }

  /** Whether linear_few.cu can compute `rows` rows: at most 8, if shared memory has room for them. */
  isFew(rows: number, inputs: number): boolean {
    return rows <= mostFewRows && this.#ringDepth(rows, inputs) !== undefined;
  }

  /** y (float32) = norm(x) W^T + bias. For {@linkcode isFew} rows. */
  normLinear({ x, norm, indices, rows, epsilon }: NormedRows, layer: LinearLayer, y: bigint): void {
    const { weights, bias, outputs, inputs } = layer;
    const { shape, depth } = this.#fewShape(rows, outputs, inputs);
    const addresses = [x, weights, norm, bias, y, indices];
    this.#normLinear(shape, ...addresses, rows, outputs, inputs, epsilon, depth);
  }

  /** y (of the kernels' type) = silu(gate) * up of norm(x) W^T = gate | up. For {@linkcode isFew} rows. */
  normGateUp({ x, norm, rows, epsilon }: NormedRows, layer: LinearLayer, y: bigint): void {
    const { weights, outputs, inputs } = layer;
    const { shape, depth } = this.#fewShape(rows, outputs, inputs);
    this.#normGateUp(shape, x, weights, norm, y, rows, outputs, inputs, epsilon, depth);
  }

  /** y (float32) += x W^T + bias. For {@linkcode isFew} rows. */
  linearAdd(layer: LinearLayer, x: bigint, y: bigint, rows: number): void {
    const { weights, bias, outputs, inputs } = layer;
    const { shape, depth } = this.#fewShape(rows, outputs, inputs);
    this.#linearAdd(shape, x, weights, bias, y, rows, outputs, inputs, depth);
  }

  /** y (float32) = or += x W^T + bias. */
  linear(layer: LinearLayer, x: bigint, y: bigint, rows: number, mode: "set" | "add"): void {
    const { weights, bias, outputs, inputs } = layer;
    const gridOf = (tile: number) =>
      [Math.ceil(rows / tile), Math.ceil(outputs / tile), 1] as const;
    // Large tiles load less for each product, but must be enough for all multiprocessors.
    const [rowTiles, outputTiles] = gridOf(128);
    const tile = rows > 64 && rowTiles * outputTiles >= this.#device.multiprocessors ? 128 : 64;
    this.#many[tile](
      { grid: gridOf(tile), threads: 256, sharedBytes: manySharedBytes[tile] },
      ...[x, weights, bias, y, rows, outputs, inputs, mode === "add" ? 1 : 0],
    );
  }

  /**
   * Norms and rotates the heads of `qkv`, writes keys and values to the cache, and
   * output [rows, heads, headDim] = attention of each row. Each sequence has one row.
   * @param parts into which contexts are cut, each computed by a block of its own; 1: by one block
   */
  decodeAttention(
    qkv: bigint,
    norms: HeadNorms,
    ropeTable: bigint,
    tables: RowTables,
    cache: CacheLayer,
    output: bigint,
    parts: number,
    { window, partials, counters }: AttentionOptions,
  ): void {
    const { heads, kvHeads, headDim } = this.#shape;
    const size = sizeOf(headDim);
    const stages = decodeStages(size, this.#device.sharedMemoryPerBlockBytes);
    const isApart = parts > 1;
    this.#decodeAttention(
      {
        grid: [kvHeads, tables.rows, parts],
        threads: 128,
        sharedBytes: decodeSharedBytes(size, stages),
      },
      ...[qkv, norms.query, norms.key, ropeTable],
      ...[tables.positions, tables.sequences, tables.blockTables, cache.address, cache.blockStride],
      ...[output, isApart ? partials : 0n, counters, cache.blockShift, kvHeads, headDim, heads],
      ...[tables.maxBlocks, window, stages, this.#scale, norms.epsilon],
    );
  }

  /** output [rows, heads, headDim] = attention of rows whose heads are prepared and in the cache. */
  promptAttention(
    qkv: bigint,
    tables: RowTables,
    cache: CacheLayer,
    output: bigint,
    { window }: AttentionOptions,
  ): void {
    const { heads, kvHeads, headDim } = this.#shape;
    const { mostRows, numSequences, starts, lengths, blockTables, maxBlocks } = tables;
    const blocks = Math.ceil(mostRows * heads / kvHeads / queriesOfBlock);
    this.#promptAttention(
      {
        grid: [kvHeads, blocks, numSequences],
        threads: 128,
        sharedBytes: 2 * tileBytes(sizeOf(headDim)),
      },
      ...[qkv, starts, lengths, blockTables, cache.address, cache.blockStride, output],
      ...[cache.blockShift, kvHeads, headDim, heads, maxBlocks, window, this.#scale],
    );
  }

  /** Of scores, for exponentials to the base 2. */
  get #scale(): number {
    return Math.LOG2E / Math.sqrt(this.#shape.headDim);
  }

  #ringDepth(rows: number, inputs: number): number | undefined {
    return ringDepth(rows, inputs, this.#device.sharedMemoryPerBlockBytes);
  }

  #fewShape(rows: number, outputs: number, inputs: number) {
    const depth = this.#ringDepth(rows, inputs)!;
    const tiles = Math.ceil(outputs / tileOutputs);
    const blocks = Math.max(1, Math.min(tiles, this.#device.multiprocessors));
    const sharedBytes = fewSharedBytes(rows, inputs, depth);
    return { shape: { grid: [blocks, 1, 1], threads: 256, sharedBytes } as const, depth };
  }
}
