/** linear_few.cu, linear_many.cu, decode_attention.cu, prompt_attention.cu: the types of 16 bits. */
import {
  type AttentionOptions,
  type CacheLayer,
  type ElementType,
  type HeadNorms,
  type HeadShape,
  type KernelDevice,
  type LinearLayer,
  type NarrowFormats,
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
const warps = 8, chunkInputs = 128;
/** Sizes of the tiles of linear_many.cu, with the stages of their rings, and inputs of a stage. */
const manyStages = { 64: 4, 128: 3 } as const, stageInputs = 64;

/** Bytes of one element of the weights or of the KV cache: 2 (bf16, f16) or 1 (FP8). */
type Bytes = 1 | 2;

/** Shared memory of a block of linear_many.cu. */
function manySharedBytes(tile: 64 | 128, weightBytes: Bytes): number {
  return manyStages[tile] * tile * stageInputs * (2 + weightBytes);
}
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

/** `ringBytes` of attention_tiles.h: a ring, and behind stages of 8 bits a tile. */
function ringBytes(size: number, stages: number, cacheBytes: Bytes): number {
  if (cacheBytes === 2) return stages * tileBytes(size);
  return stages * 2 * tileTokens * size + tileBytes(size);
}

/** Shared memory that the kernels need of a device. */
export function tensorSharedBytes({ headDim }: HeadShape): number {
  const many = ([64, 128] as const).map((tile) => manySharedBytes(tile, 2));
  return Math.max(...many, decodeSharedBytes(sizeOf(headDim), 2, 2));
}

function sizeOf(headDim: number): number {
  return headSizes.find((size) => size >= headDim)!;
}

function decodeSharedBytes(size: number, stages: number, cacheBytes: Bytes): number {
  return ringBytes(size, stages, cacheBytes) + 18 * (size + 8) * 2 + 16 * scorePitch * 4;
}

/** Stages of the ring of decode_attention.cu, where a block can have so much shared memory. */
function decodeStages(size: number, cacheBytes: Bytes, sharedMemoryPerBlockBytes: number): number {
  const most = Math.min(neighbourSharedBytes, sharedMemoryPerBlockBytes);
  return decodeSharedBytes(size, 3, cacheBytes) <= most ? 3 : 2;
}

/** Stages of linear_few.cu's rings of weights; undefined: shared memory has no room for `rows` rows. */
function ringDepth(
  rows: number,
  inputs: number,
  weightBytes: Bytes,
  { sharedMemoryPerBlockBytes, mostRingStages = ringDepths[0] }: RingDevice,
): number | undefined {
  const most = Math.min(neighbourSharedBytes, sharedMemoryPerBlockBytes);
  return ringDepths.find((depth) =>
    depth <= mostRingStages && fewSharedBytes(rows, inputs, weightBytes, depth) <= most
  );
}

type RingDevice = Pick<KernelDevice, "sharedMemoryPerBlockBytes" | "mostRingStages">;

function ringStageBytes(weightBytes: Bytes): number {
  return tileOutputs * chunkInputs * weightBytes;
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
  const bytes = /_(w8|kv8)(_|$)/.test(name) ? 1 : 2;
  if (name.startsWith("decode_attention")) {
    const stages = decodeStages(size, bytes, sharedMemoryPerBlockBytes);
    const loadingBytes = (stages - 1) * 2 * tileTokens * size * bytes;
    return { threads: 128, sharedBytes: decodeSharedBytes(size, stages, bytes), loadingBytes };
  }
  if (name.startsWith("prompt_attention")) {
    const loadingBytes = 2 * tileTokens * size * bytes;
    return { threads: 128, sharedBytes: ringBytes(size, 2, bytes), loadingBytes };
  }
  if (name.startsWith("linear_many")) {
    const tile = size as 64 | 128;
    const loadingBytes = (manyStages[tile] - 1) * tile * stageInputs * bytes;
    return { threads: 256, sharedBytes: manySharedBytes(tile, bytes), loadingBytes };
  }
  if (/^(norm_linear|norm_gate_up|linear_add)_/.test(name)) {
    const depth = ringDepth(1, inputs, bytes, { sharedMemoryPerBlockBytes })!;
    const sharedBytes = fewSharedBytes(1, inputs, bytes, depth);
    const loadingBytes = warps * (depth - 1) * ringStageBytes(bytes);
    return { threads: 256, sharedBytes, loadingBytes };
  }
  return null;
}

function fewSharedBytes(rows: number, inputs: number, weightBytes: Bytes, depth: number): number {
  const xPitch = Math.ceil(inputs / chunkInputs) * chunkInputs + 32;
  return warps * depth * ringStageBytes(weightBytes) + 2 * warps * tileOutputs * mostFewRows * 4 +
    rows * xPitch * 2;
}

/** Kernels of linear layers, for weights of one type. */
interface LinearKernels {
  readonly weightBytes: Bytes;
  readonly normLinear: Launcher;
  readonly normGateUp: Launcher;
  readonly linearAdd: Launcher;
  readonly many: Readonly<Record<64 | 128, Launcher>>;
}

/** Kernels for weights of the kernels' type, or for those with scales. */
function linearKernels(modules: KernelModules, suffix: string, isScaled: boolean): LinearKernels {
  const waits = true;
  const [few, many] = isScaled
    ? ["linear_few_fp8", "linear_many_fp8"] as const
    : ["linear_few", "linear_many"] as const;
  const name = isScaled ? `${suffix}_w8` : suffix;
  /** Matrices with scales have two addresses. */
  const launcher = (file: typeof few | typeof many, kernel: string, parameters: string) =>
    modules.launcher(file, kernel, isScaled ? `p${parameters}` : parameters, waits);
  const tile = (size: number) => launcher(many, `linear_many_${name}_${size}`, "ppppiiii");
  return {
    weightBytes: isScaled ? 1 : 2,
    normLinear: launcher(few, `norm_linear_${name}`, "ppppppiiifi"),
    normGateUp: launcher(few, `norm_gate_up_${name}`, "ppppiiifi"),
    linearAdd: launcher(few, `linear_add_${name}`, "ppppiiii"),
    many: { 64: tile(64), 128: tile(128) },
  };
}

/** Addresses of a layer's weights, as kernels take them. */
function matrixOf({ weights, scales = 0n }: LinearLayer): bigint[] {
  return scales === 0n ? [weights] : [weights, scales];
}

export class TensorKernels {
  readonly #shape: HeadShape;
  readonly #device: KernelDevice;
  readonly #cacheBytes: Bytes;
  readonly #linear: LinearKernels;
  readonly #scaled: LinearKernels | null;
  readonly #decodeAttention: Launcher;
  readonly #promptAttention: Launcher;

  constructor(
    modules: KernelModules,
    type: ElementType,
    shape: HeadShape,
    device: KernelDevice,
    formats: NarrowFormats = {},
  ) {
    const suffix = suffixes[type], size = sizeOf(shape.headDim), hasNarrow = !!formats.cache;
    this.#shape = shape;
    this.#device = device;
    this.#cacheBytes = hasNarrow ? 1 : 2;
    this.#linear = linearKernels(modules, suffix, false);
    this.#scaled = formats.weights ? linearKernels(modules, suffix, true) : null;
    const name = hasNarrow ? `${suffix}_kv8_${size}` : `${suffix}_${size}`;
    this.#decodeAttention = modules.launcher(
      hasNarrow ? "decode_attention_fp8" : "decode_attention",
      `decode_attention_${name}`,
      "pppppppplpppiiiiiiiff",
      true,
    );
    this.#promptAttention = modules.launcher(
      hasNarrow ? "prompt_attention_fp8" : "prompt_attention",
      `prompt_attention_${name}`,
      "ppppplpiiiiiif",
    );
  }

  /** Whether linear_few.cu can compute `rows` rows: at most 8, if shared memory has room for them. */
  isFew(rows: number, layer: LinearLayer): boolean {
    return rows <= mostFewRows && this.#ringDepth(rows, layer) !== undefined;
  }

  /** y (float32) = norm(x) W^T + bias. For {@linkcode isFew} rows. */
  normLinear({ x, norm, indices, rows, epsilon }: NormedRows, layer: LinearLayer, y: bigint): void {
    const { bias, outputs, inputs } = layer;
    const { shape, depth } = this.#fewShape(rows, layer);
    const addresses = [x, ...matrixOf(layer), norm, bias, y, indices];
    this.#kernelsFor(layer).normLinear(shape, ...addresses, rows, outputs, inputs, epsilon, depth);
  }

  /** y (of the kernels' type) = silu(gate) * up of norm(x) W^T = gate | up. For {@linkcode isFew} rows. */
  normGateUp({ x, norm, rows, epsilon }: NormedRows, layer: LinearLayer, y: bigint): void {
    const { outputs, inputs } = layer;
    const { shape, depth } = this.#fewShape(rows, layer);
    const addresses = [x, ...matrixOf(layer), norm, y];
    this.#kernelsFor(layer).normGateUp(shape, ...addresses, rows, outputs, inputs, epsilon, depth);
  }

  /** y (float32) += x W^T + bias. For {@linkcode isFew} rows. */
  linearAdd(layer: LinearLayer, x: bigint, y: bigint, rows: number): void {
    const { bias, outputs, inputs } = layer;
    const { shape, depth } = this.#fewShape(rows, layer);
    const addresses = [x, ...matrixOf(layer), bias, y];
    this.#kernelsFor(layer).linearAdd(shape, ...addresses, rows, outputs, inputs, depth);
  }

  /** y (float32) = or += x W^T + bias. */
  linear(layer: LinearLayer, x: bigint, y: bigint, rows: number, mode: "set" | "add"): void {
    const { bias, outputs, inputs } = layer, { many, weightBytes } = this.#kernelsFor(layer);
    const gridOf = (tile: number) =>
      [Math.ceil(rows / tile), Math.ceil(outputs / tile), 1] as const;
    // Large tiles load less for each product, but must be enough for all multiprocessors.
    const [rowTiles, outputTiles] = gridOf(128);
    const tile = rows > 64 && rowTiles * outputTiles >= this.#device.multiprocessors ? 128 : 64;
    many[tile](
      { grid: gridOf(tile), threads: 256, sharedBytes: manySharedBytes(tile, weightBytes) },
      ...[x, ...matrixOf(layer), bias, y, rows, outputs, inputs, mode === "add" ? 1 : 0],
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
    const stages = decodeStages(size, this.#cacheBytes, this.#device.sharedMemoryPerBlockBytes);
    const isApart = parts > 1;
    this.#decodeAttention(
      {
        grid: [kvHeads, tables.rows, parts],
        threads: 128,
        sharedBytes: decodeSharedBytes(size, stages, this.#cacheBytes),
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
        sharedBytes: ringBytes(sizeOf(headDim), 2, this.#cacheBytes),
      },
      ...[qkv, starts, lengths, blockTables, cache.address, cache.blockStride, output],
      ...[cache.blockShift, kvHeads, headDim, heads, maxBlocks, window, this.#scale],
    );
  }

  /** Of scores, for exponentials to the base 2. */
  get #scale(): number {
    return Math.LOG2E / Math.sqrt(this.#shape.headDim);
  }

  #kernelsFor({ scales = 0n }: LinearLayer): LinearKernels {
    return scales === 0n ? this.#linear : this.#scaled!;
  }

  #ringDepth(rows: number, layer: LinearLayer): number | undefined {
    const { weightBytes } = this.#kernelsFor(layer);
    return ringDepth(rows, layer.inputs, weightBytes, this.#device);
  }

  #fewShape(rows: number, layer: LinearLayer) {
    const { outputs, inputs } = layer, depth = this.#ringDepth(rows, layer)!;
    const tiles = Math.ceil(outputs / tileOutputs);
    const blocks = Math.max(1, Math.min(tiles, this.#device.multiprocessors));
    const { weightBytes } = this.#kernelsFor(layer);
    const sharedBytes = fewSharedBytes(rows, inputs, weightBytes, depth);
    return { shape: { grid: [blocks, 1, 1], threads: 256, sharedBytes } as const, depth };
  }
}
