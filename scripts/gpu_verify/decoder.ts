/**
 * Measures layers of decoders: decode steps, with and without programmatic launches and with rings of weights
 * of two depths, as a share of the bandwidth of a copy on the device; prompts in products a second, as a share
 * of one large product. All weights are the same number, because the time does not depend on their values.
 */
import { GraphDriver } from "../../ffi/cuda/graphs.ts";
import {
  DecoderKernels,
  fastPaths,
  type HeadShape,
  type KernelPaths,
} from "../../ffi/cuda_kernels/decoder_kernels.ts";
import { openCuda } from "../../ffi/cuda/open.ts";
import { LibraryLinear, libraryWorkspaceBytes } from "../../ffi/cuda_kernels/library_linear.ts";
import { CublasError } from "../../ffi/cublaslt/cublaslt.ts";
import { LibraryNotFoundError } from "../../ffi/library.ts";
import { addressOf, nativeBuffer } from "../../ffi/memory.ts";
import { expect, found, isShort, reached } from "./device.ts";
import { tablesOf } from "./tables.ts";

interface ModelShape extends HeadShape {
  readonly name: "tiny" | "8B" | "1B" | "0.6B";
  readonly hidden: number;
  readonly intermediate: number;
}

const models: readonly ModelShape[] = isShort
  ? [{ name: "tiny", hidden: 64, intermediate: 160, heads: 4, kvHeads: 2, headDim: 16 }]
  : [
    { name: "8B", hidden: 4096, intermediate: 14336, heads: 32, kvHeads: 8, headDim: 128 },
    { name: "1B", hidden: 2048, intermediate: 8192, heads: 32, kvHeads: 8, headDim: 64 },
    { name: "0.6B", hidden: 1024, intermediate: 3072, heads: 16, kvHeads: 8, headDim: 128 },
  ];
const context = isShort ? 20 : 1024, promptRows = isShort ? 24 : 2048;
/** Layers of a step: together more than the second-level cache. */
const layers = isShort ? 2 : 8;
const repeats = isShort ? 1 : 20;
const batches = isShort ? [1, 9] : [1, 4, 8, 64];
const blockShift = 4, blockSize = 1 << blockShift;

const cuda = openCuda();
cuda.setDevice(0);
const stream = cuda.createStream();
const graphs = GraphDriver.open();
const device = cuda.deviceInfo(0);

/** Bytes of device memory that are all `byte`. Never freed: the process ends soon. */
function filled(byteLength: number, byte: number): bigint {
  const address = cuda.malloc(byteLength);
  cuda.memset(address, byte, byteLength, stream);
  return address;
}

function words(values: readonly number[]): bigint {
  const bytes = nativeBuffer(values.length * 4);
  new Int32Array(bytes.buffer).set(values);
  const address = cuda.malloc(bytes.length);
  cuda.copy(address, addressOf(bytes), bytes.length, stream);
  cuda.synchronizeStream(stream);
  return address;
}

/** Milliseconds of a graph of what `enqueue` launches. */
function timeOf(enqueue: () => void): number {
  enqueue(); // what a first launch has to do is done
  const graph = graphs.capture(stream, enqueue);
  graphs.launch(graph, stream);
  cuda.synchronizeStream(stream);
  const startMs = performance.now();
  for (let i = 0; i < repeats; i++) graphs.launch(graph, stream);
  cuda.synchronizeStream(stream);
  const tookMs = (performance.now() - startMs) / repeats;
  graphs.destroy(graph);
  return tookMs;
}

/** Bytes read a millisecond by a copy within the device. */
function copyRate(): number {
  const byteLength = isShort ? 1 << 20 : 1 << 30;
  const from = filled(byteLength, 1), to = filled(byteLength, 2);
  const tookMs = timeOf(() => cuda.copy(to, from, byteLength, stream));
  for (const address of [from, to]) cuda.free(address);
  return 2 * byteLength / tookMs;
}

/** A model's layers in memory, and steps through them. */
class Layers {
  readonly #model: ModelShape;
  readonly #weights: readonly (readonly bigint[])[];
  readonly #norm: bigint;
  readonly #maxRows = Math.max(promptRows, ...batches);
  readonly #rope: bigint;

  constructor(model: ModelShape) {
    this.#model = model;
    this.#weights = Array.from(
      { length: layers },
      () => this.#matrices.map(([outputs, inputs]) => filled(outputs * inputs * 2, 0x3c)),
    );
    this.#norm = filled(model.hidden * 4, 0x3c);
    this.#rope = filled(Math.max(context, promptRows) * model.headDim * 4, 0x3c);
  }

  /** [outputs, inputs] of qkv, output, gate and up, down. */
  get #matrices(): readonly (readonly [number, number])[] {
    const { hidden, intermediate, heads, kvHeads, headDim } = this.#model;
    return [
      [(heads + 2 * kvHeads) * headDim, hidden],
      [hidden, heads * headDim],
      [2 * intermediate, hidden],
      [hidden, intermediate],
    ];
  }

  /** Elements of the layers' weights. */
  get elements(): number {
    const sum = this.#matrices.reduce((sum, [outputs, inputs]) => sum + outputs * inputs, 0);
    return layers * sum;
  }

  /** Milliseconds of a step of `count` sequences of `length` tokens, of each the last `rows`. */
  time(
    { mostRingStages, ...paths }: KernelPaths & { mostRingStages?: number },
    count: number,
    rows: number,
    length: number,
  ): number {
    const { hidden, intermediate, heads, kvHeads, headDim } = this.#model;
    const shape = { heads, kvHeads, headDim };
    const on = { ...device, mostRingStages };
    const kernels = new DecoderKernels("bfloat16", shape, on, stream, paths);
    const tables = tablesOf(words, blockShift, count, rows, length), all = tables.rows;
    expect(all <= this.#maxRows, `${all} rows`);
    const blockStride = 2 * kvHeads * headDim * blockSize;
    const room = (elements: number) => filled(elements * 4, 0);
    const cacheBytes = count * tables.maxBlocks * blockStride * 2;
    const caches = this.#weights.map(() => filled(cacheBytes, 0x3c));
    const [residual, normed, activated] = [
      room(all * hidden),
      room(all * hidden),
      room(all * intermediate),
    ];
    const [qkv, attended, gateUp] = [
      room(all * this.#matrices[0][0]),
      room(all * heads * headDim),
      room(all * 2 * intermediate),
    ];
    const partialsBytes = kernels.partialsBytes(length);
    const options = {
      window: 0,
      partials: filled(Math.max(16, partialsBytes), 0),
      partialsBytes,
      counters: filled(kernels.countersBytes, 0),
    };
    const norms = { query: 0n, key: 0n, epsilon: 1e-5 };
    const from = { x: residual, norm: this.#norm, indices: 0n, rows: all, epsilon: 1e-5 };
    const tookMs = timeOf(() =>
      this.#weights.forEach((addresses, layer) => {
        const [first, output, gateUpLayer, down] = addresses.map((weights, i) => {
          const [outputs, inputs] = this.#matrices[i];
          return { weights, bias: 0n, outputs, inputs };
        });
        const cache = { address: caches[layer], blockStride, blockShift };
        kernels.normLinear(from, first, qkv, normed);
        kernels.attention(qkv, norms, this.#rope, tables, cache, attended, options);
        kernels.linearAdd(output, attended, residual, all);
        kernels.normGateUp(from, gateUpLayer, activated, normed, gateUp);
        kernels.linearAdd(down, activated, residual, all);
      })
    );
    const rooms = [residual, normed, activated, qkv, attended, gateUp];
    for (const address of [...rooms, ...caches, options.partials, options.counters]) {
      cuda.free(address);
    }
    kernels.close();
    return tookMs;
  }

  /** Frees the weights. */
  free(): void {
    for (const address of [...this.#weights.flat(), this.#norm, this.#rope]) cuda.free(address);
  }
}

/** Products and sums a millisecond of one large bfloat16 product by cuBLASLt; null, and why, without it. */
function matrixRate(): number | null {
  const size = isShort ? 64 : 8192;
  const [w, x, y] = [2, 2, 4].map((bytes) => filled(size * size * bytes, 0x3c));
  const room = { workspace: filled(libraryWorkspaceBytes, 0), sums: 0n };
  const layer = { weights: w, bias: 0n, outputs: size, inputs: size };
  const shape = { heads: 1, kvHeads: 1, headDim: 64 };
  const kernels = new DecoderKernels("bfloat16", shape, device, stream);
  try {
    kernels.useLibrary(new LibraryLinear(size, "bfloat16", [layer], room, stream));
    kernels.computeByLibrary([{ first: 0, count: size }]);
    const tookMs = timeOf(() => kernels.linear(layer, x, y, size, "set"));
    return 2 * size ** 3 / tookMs;
  } catch (error) {
    if (!(error instanceof CublasError || error instanceof LibraryNotFoundError)) throw error;
    found("one large bfloat16 product", `not measured: ${error.message}`);
    return null;
  } finally {
    kernels.close();
    for (const address of [w, x, y, room.workspace]) cuda.free(address);
  }
}

const bytesPerMs = copyRate();
found("device copy", `${(bytesPerMs / 1e6).toPrecision(3)} GB/s`);
const productsPerMs = matrixRate();
if (productsPerMs !== null) {
  found("one large bfloat16 product", `${(productsPerMs / 1e9).toPrecision(3)} TFLOP/s`);
}

/** Ways to launch a step. */
const ways = [
  { name: "", paths: { ...fastPaths } },
  { name: ", rings of 4 stages", paths: { ...fastPaths, mostRingStages: 4 } },
  { name: ", one by one", paths: { ...fastPaths, programmatic: false } },
  {
    name: ", one by one, rings of 4 stages",
    paths: { ...fastPaths, programmatic: false, mostRingStages: 4 },
  },
] as const;

function measureDecode(model: ModelShape, all: Layers): void {
  const cachedBytes = layers * context * 2 * model.kvHeads * model.headDim * 2;
  for (const rows of batches) {
    // Rings are of batches of up to 8 rows.
    for (
      const { name, paths } of rows <= 8
        ? ways
        : ways.filter((way) => !("mostRingStages" in way.paths))
    ) {
      const tookMs = all.time(paths, rows, 1, context);
      const bytes = all.elements * 2 + rows * cachedBytes;
      const share = bytes / tookMs / bytesPerMs;
      found(
        `${model.name}, ${rows} rows, context ${context}${name}`,
        `${(tookMs / layers * 1000).toFixed(1)} us a layer, ${
          (share * 100).toFixed(0)
        }% of the copy`,
      );
      if (name !== "" || model.name === "tiny") continue;
      if (rows === 1) reached(`decode-${model.name.toLowerCase() as "8b" | "1b" | "0.6b"}`, share);
      if (rows === 64 && model.name === "8B") reached("decode-8b-64", share);
    }
  }
}

function measurePrompt(model: ModelShape, all: Layers): void {
  const tookMs = all.time(fastPaths, 1, promptRows, promptRows);
  const perToken = 2 * all.elements + layers * 2 * promptRows * model.heads * model.headDim;
  const rate = perToken * promptRows / tookMs;
  const share = productsPerMs === null
    ? ""
    : `, ${(rate / productsPerMs * 100).toFixed(0)}% of one large product`;
  found(
    `${model.name}, prompt of ${promptRows} tokens`,
    `${(rate / 1e9).toPrecision(3)} TFLOP/s${share}`,
  );
  if (model.name === "8B" && productsPerMs !== null) reached("prefill", rate / productsPerMs);
}

for (const model of models) {
  const all = new Layers(model);
  measureDecode(model, all);
  measurePrompt(model, all);
  all.free();
}
