/** The kernels of a decoder on arrays of a test: what they compute, and the same in float64. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import {
  DecoderKernels,
  elementBytes,
  type ElementType,
  fastPaths,
  type HeadShape,
  type KernelDevice,
  type KernelPaths,
  type LinearLayer,
  type NarrowFormats,
  type RowTables,
  suffixes,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import { addressOf, nativeBuffer } from "../../../ffi/memory.ts";
import type { OpenOptions } from "../../../ffi/library.ts";
import { Random } from "../../../src/core/random.ts";
import { e4m3Values, nanCodes, quantizeRow, toE4m3 } from "../../../src/model/fp8.ts";
import { encodeFloats, tensorValues } from "../../../src/model/tensor.ts";

export const elementTypes = Object.keys(suffixes) as ElementType[];

/** Kernels of one type on a device, whose memory is freed by {@linkcode DecoderBench.close}. */
export class DecoderBench {
  readonly kernels: DecoderKernels;
  readonly stream: bigint;
  readonly #addresses: bigint[] = [];

  /** @param multiprocessors decides whether parts of contexts are computed apart: 0 never, many always */
  constructor(
    readonly cuda: Cuda,
    readonly type: ElementType,
    readonly shape: HeadShape = { heads: 1, kvHeads: 1, headDim: 64 },
    multiprocessors = 0,
    paths: KernelPaths = fastPaths,
    options: OpenOptions = {},
    kernelDevice: Partial<KernelDevice> = {},
    readonly formats: NarrowFormats = {},
  ) {
    this.stream = cuda.createStream();
    const device = { ...cuda.deviceInfo(0), multiprocessors, ...kernelDevice };
    this.kernels = new DecoderKernels(type, shape, device, this.stream, paths, options, formats);
  }

  close(): void {
    this.cuda.synchronizeStream(this.stream);
    for (const address of this.#addresses) this.cuda.free(address);
    this.kernels.close();
    this.cuda.destroyStream(this.stream);
  }

  /** Device memory, fresh. */
  room(byteLength: number): bigint {
    const address = this.cuda.malloc(Math.max(byteLength, 16));
    this.#addresses.push(address);
    return address;
  }

  /** Device memory with these bytes. */
  upload(values: Uint8Array | Float32Array | Int32Array): bigint {
    const bytes = nativeBuffer(values.byteLength);
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    const address = this.room(values.byteLength);
    this.cuda.copy(address, addressOf(bytes), bytes.length, this.stream);
    this.cuda.synchronizeStream(this.stream);
    return address;
  }

  /** Device memory with elements of the kernels' type. */
  narrow(values: Float32Array): bigint {
    return this.upload(encodeFloats(values, this.type));
  }

  /** Device memory with elements of the cache's type. NaN is there in both of its codes. */
  narrowCache(values: Float32Array): bigint {
    if (this.formats.cache === undefined) return this.narrow(values);
    const codeOf = (value: number, i: number) =>
      Number.isNaN(value) ? nanCodes[i % 2] : toE4m3(value);
    return this.upload(Uint8Array.from(values, codeOf));
  }

  /** Weights of a layer, [outputs, inputs], in 8 bits if the formats say so; and what they are after rounding. */
  weights(values: Float32Array, outputs: number) {
    if (this.formats.weights === undefined) {
      return { weights: this.narrow(values), scales: 0n, values };
    }
    const inputs = values.length / outputs;
    const weights = this.room(values.length), scales = this.room(outputs * 4);
    this.kernels.quantizeRows(this.narrow(values), weights, scales, outputs, inputs);
    // Kernels read weights before the kernel before them has ended: it must not be the one that wrote them.
    this.kernels.largestLogit(scales, this.room(4), 1, outputs);
    const rows = Array.from(
      { length: outputs },
      (_, row) => quantizeRow(values.subarray(row * inputs, (row + 1) * inputs)),
    );
    const codes = Uint8Array.from(rows.flatMap(({ codes }) => Array.from(codes)));
    assert.deepEqual(this.bytes(weights, values.length), codes, `${this.type}: codes`);
    const scaleOf = Float32Array.from(rows, ({ scale }) => scale);
    assert.deepEqual(this.floats(scales, outputs), scaleOf, `${this.type}: scales`);
    const rounded = Float64Array.from(
      codes,
      (code, i) => e4m3Values[code] * scaleOf[Math.floor(i / inputs)],
    );
    return { weights, scales, values: rounded };
  }

  bytes(address: bigint, byteLength: number): Uint8Array<ArrayBuffer> {
    const bytes = nativeBuffer(byteLength);
    this.cuda.copy(addressOf(bytes), address, byteLength, this.stream);
    this.cuda.synchronizeStream(this.stream);
    return bytes;
  }

  floats(address: bigint, length: number): Float32Array {
    return new Float32Array(this.bytes(address, length * 4).buffer);
  }

  /** Elements of the kernels' type, widened. */
  widened(address: bigint, length: number): Float32Array {
    const { type } = this;
    const bytes = this.bytes(address, length * elementBytes[type]);
    return tensorValues({ name: "", dtype: type, shape: [length], bytes }, type);
  }

  /** y [rows, outputs] of a layer, for the first `rows` rows of x. */
  linear(layer: LinearLayer, x: bigint, rows: number): Float32Array {
    const y = this.room(rows * layer.outputs * 4);
    this.kernels.linear(layer, x, y, rows, "set");
    return this.floats(y, rows * layer.outputs);
  }
}

/** Values that the type can hold, about normal, from a seed. */
export function randomValues(seed: number, length: number, type: ElementType): Float32Array {
  const random = new Random(seed);
  const uniform = () => random.below(1 << 20) / (1 << 20);
  const values = Float32Array.from(
    { length },
    () => uniform() + uniform() + uniform() + uniform() - 2,
  );
  const bytes = encodeFloats(values, type);
  return Float32Array.from(tensorValues({ name: "", dtype: type, shape: [length], bytes }, type));
}

/** Norm of the difference over the norm of the truth. */
export function errorOf(found: Float32Array, truth: Float64Array): number {
  let difference = 0, norm = 0;
  truth.forEach((value, i) => {
    difference += (found[i] - value) ** 2;
    norm += value ** 2;
  });
  return Math.sqrt(difference / norm);
}

/** Sequences with random queries, and keys and values in a paged cache. */
export interface AttentionCase {
  readonly shape: HeadShape;
  readonly blockShift: number;
  readonly window: number;
  /** Rows: the position of each, and its sequence. */
  readonly rows: readonly { readonly sequence: number; readonly position: number }[];
  /** Tokens of each sequence. */
  readonly lengths: readonly number[];
  /** What the cache holds where no row looks; default NaN. */
  readonly unseen?: number;
  /** Elements of keys and values that are NaN. */
  readonly poison?: readonly Poison[];
}

/** An element of a key or a value. */
export interface Poison {
  readonly sequence: number;
  readonly position: number;
  readonly which: "key" | "value";
  readonly kvHead: number;
  readonly column: number;
}

/** What {@linkcode runAttention} gives: rows of all heads, and the same in float64. */
export interface AttentionOutcome {
  readonly found: Float32Array;
  readonly truth: Float64Array;
}

/**
 * Attends to a cache, without norms and with rotations by 0.
 * @param seed of the values and of where the blocks lie
 * @param way attend: all keys are in the cache; decode: each row brings its own, and there is one a sequence
 */
export function runAttention(
  bench: DecoderBench,
  given: AttentionCase,
  seed: number,
  way: "attend" | "decode" = "attend",
): AttentionOutcome {
  const { shape: { heads, kvHeads, headDim }, blockShift, window, rows, lengths } = given;
  const { type, kernels } = bench;
  const blockSize = 1 << blockShift, width = (heads + 2 * kvHeads) * headDim;
  const maxBlocks = Math.max(...lengths.map((length) => Math.ceil(length / blockSize)));
  const numBlocks = lengths.length * maxBlocks;
  const order = shuffled(numBlocks, seed);
  const blockTables = bench.upload(Int32Array.from(order));
  const blockStride = 2 * kvHeads * headDim * blockSize;
  const maxContextLen = Math.max(...lengths);
  // Every row of the table turns by nothing: cosines of 1, then sines of 0.
  const rope = Float32Array.from(
    { length: maxContextLen * headDim },
    (_, i) => i % headDim < headDim / 2 ? 1 : 0,
  );
  const ropeTable = bench.upload(rope);
  const norms = { query: 0n, key: 0n, epsilon: 1e-6 };
  const words = (values: readonly number[]) => bench.upload(Int32Array.from(values));
  const tablesOf = (of: AttentionCase["rows"]): RowTables => {
    const rowsOf = lengths.map((_, i) => of.filter(({ sequence }) => sequence === i));
    return {
      rows: of.length,
      positions: words(of.map(({ position }) => position)),
      slots: words(of.map(({ sequence, position }) => {
        const block = order[sequence * maxBlocks + (position >> blockShift)];
        return block << blockShift | position & (blockSize - 1);
      })),
      sequences: words(of.map(({ sequence }) => sequence)),
      blockTables,
      maxBlocks,
      starts: words([0, ...rowsOf.map((_, i) => rowsOf.slice(0, i + 1).flat().length)]),
      lengths: words(rowsOf.map((some) => (some.at(-1)?.position ?? -1) + 1)),
      numSequences: lengths.length,
      mostRows: Math.max(...rowsOf.map((some) => some.length)),
      maxContextLen,
    };
  };
  // All tokens of all sequences, then the rows whose attention is wanted.
  const tokens = lengths.flatMap((length, sequence) =>
    Array.from({ length }, (_, position) => ({ sequence, position }))
  );
  const isOfRows = (token: AttentionCase["rows"][number]) =>
    rows.some((row) => row.sequence === token.sequence && row.position === token.position);
  const cached = randomValues(seed, tokens.length * width, type);
  if (bench.formats.cache !== undefined) {
    cached.forEach((value, i) => {
      if (i % width >= heads * headDim) cached[i] = e4m3Values[toE4m3(value)];
    });
  }
  const rowOf = ({ sequence, position }: { sequence: number; position: number }) =>
    lengths.slice(0, sequence).reduce((sum, length) => sum + length, 0) + position;
  for (const { which, kvHead, column, ...token } of given.poison ?? []) {
    const head = heads + (which === "key" ? 0 : kvHeads) + kvHead;
    cached[rowOf(token) * width + head * headDim + column] = NaN;
  }
  const valuesOf = (of: AttentionCase["rows"]) =>
    bench.upload(Float32Array.from(of.flatMap((row) => {
      const at = rowOf(row) * width;
      return Array.from(cached.subarray(at, at + width));
    })));
  const inCache = new Float32Array(numBlocks * blockStride).fill(given.unseen ?? NaN);
  for (const token of tokens) {
    if (way === "decode" && isOfRows(token)) continue;
    const { sequence, position } = token;
    const block = order[sequence * maxBlocks + (position >> blockShift)];
    for (let head = 0; head < 2 * kvHeads; head++) { // keys, then values
      const from = rowOf(token) * width + (heads + head) * headDim;
      const slot = head * blockSize + (position & (blockSize - 1));
      inCache.set(cached.subarray(from, from + headDim), block * blockStride + slot * headDim);
    }
  }
  const cache = { address: bench.narrowCache(inCache), blockStride, blockShift };
  const output = bench.room(rows.length * heads * headDim * elementBytes[type]);
  const partialsBytes = kernels.partialsBytes(maxContextLen);
  const options = {
    window,
    partials: partialsBytes > 0 ? bench.room(partialsBytes) : 0n,
    partialsBytes,
    counters: bench.upload(new Uint8Array(kernels.countersBytes)),
  };
  const queries = valuesOf(rows), tables = tablesOf(rows);
  if (way === "attend") kernels.attend(queries, tables, cache, output, options);
  else kernels.attention(queries, norms, ropeTable, tables, cache, output, options);
  const counters = bench.bytes(options.counters, kernels.countersBytes);
  assert.ok(counters.every((byte) => byte === 0), "counters are zero again");
  const found = bench.widened(output, rows.length * heads * headDim);
  return { found, truth: attentionTruth(given, cached, rowOf, width) };
}

function attentionTruth(
  { shape: { heads, kvHeads, headDim }, window, rows }: AttentionCase,
  cached: Float32Array,
  rowOf: (row: { sequence: number; position: number }) => number,
  width: number,
): Float64Array {
  const truth = new Float64Array(rows.length * heads * headDim);
  rows.forEach(({ sequence, position }, row) => {
    const first = window > 0 ? Math.max(0, position + 1 - window) : 0;
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const query = rowOf({ sequence, position }) * width + head * headDim;
      const scores: number[] = [];
      for (let token = first; token <= position; token++) {
        const key = rowOf({ sequence, position: token }) * width + (heads + kvHead) * headDim;
        let score = 0;
        for (let i = 0; i < headDim; i++) score += cached[query + i] * cached[key + i];
        scores.push(score / Math.sqrt(headDim));
      }
      const largest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - largest));
      const sum = weights.reduce((total, weight) => total + weight, 0);
      weights.forEach((weight, i) => {
        const value = rowOf({ sequence, position: first + i }) * width +
          (heads + kvHeads + kvHead) * headDim;
        for (let j = 0; j < headDim; j++) {
          truth[(row * heads + head) * headDim + j] += weight / sum * cached[value + j];
        }
      });
    }
  });
  return truth;
}

function shuffled(count: number, seed: number): number[] {
  const random = new Random(seed);
  const left = Array.from({ length: count }, (_, i) => i);
  return Array.from({ length: count }, () => left.splice(random.below(left.length), 1)[0]);
}
