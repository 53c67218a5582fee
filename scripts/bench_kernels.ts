/**
 * Measures the CPU kernels at the shapes of a 135M and a 0.5B model with bfloat16 weights and KV
 * cache: each product with weights, as a share of the streaming read bandwidth, then whole decoder
 * steps. The kernel sets take turns, round after round, and the best round counts, because other work
 * on the machine disturbs the measurement.
 *
 * deno run -A scripts/bench_kernels.ts [--sets=avx2,wasm] [--models=135M,0.5B] [--threads=2]
 *   [--rounds=5] [--float32-activations] [--pin]
 */
import { parseArgs } from "@std/cli/parse-args";
import { allowedCpus, kernelSetStates, loadCpuKernels } from "../ffi/cpu_kernels/load.ts";
import { runKernelWorker } from "../ffi/cpu_kernels/wasm.ts";
import type {
  CpuKernels,
  Decoder,
  DecoderBatch,
  KernelAddress,
  KernelSet,
  PackedMatrix,
} from "../ffi/cpu_kernels/kernels.ts";

interface Shape {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly intermediate: number;
  readonly vocab: number;
}

const shapes: Record<string, Shape> = {
  "135M": { layers: 30, hidden: 576, heads: 9, kvHeads: 3, intermediate: 1536, vocab: 49152 },
  "0.5B": { layers: 24, hidden: 896, heads: 14, kvHeads: 2, intermediate: 4864, vocab: 49152 },
};
const headDim = 64;
const blockSize = 16;
/** Rows of a prefill, and most sequences of a decode step. */
const maxRows = 512;
/** Tokens that each decoded sequence has in the cache. */
const decodeContext = 256;

/** Weights of a decoder, and memory for its steps, on one kernel set. */
class Model {
  readonly matrices: Record<"qkv" | "output" | "gateUp" | "down" | "head", PackedMatrix[]>;
  readonly #decoder: Decoder;
  readonly #buffers: Record<"x" | "normed" | "qkv" | "wide" | "logits", KernelAddress>;

  constructor(readonly kernels: CpuKernels, readonly shape: Shape, readonly rounds: boolean) {
    const { layers, hidden, heads, kvHeads, intermediate, vocab } = shape;
    const bits = Uint16Array.from(
      { length: vocab * hidden },
      (_, i) => 0x3c00 ^ (i * 40503 & 0x80ff),
    );
    const copies = (count: number, n: number, k: number) => {
      const rows = new Uint8Array(bits.buffer, 0, n * k * 2);
      return Array.from({ length: count }, () => kernels.pack("bfloat16", [rows], n, k));
    };
    this.matrices = {
      qkv: copies(layers, (heads + 2 * kvHeads) * headDim, hidden),
      output: copies(layers, hidden, heads * headDim),
      gateUp: copies(layers, 2 * intermediate, hidden),
      down: copies(layers, hidden, intermediate),
      head: copies(1, vocab, hidden),
    };
    const floats = (width: number, rows = maxRows) => kernels.alloc(rows * width * 4);
    this.#buffers = {
      x: floats(hidden),
      normed: floats(Math.max(hidden, intermediate)),
      qkv: floats((heads + 2 * kvHeads) * headDim),
      wide: floats(2 * intermediate),
      logits: floats(vocab, 32),
    };
    const norm = this.put(new Float32Array(hidden).fill(1));
    const ropeTable = this.put(new Float32Array(maxRows * headDim).fill(Math.SQRT1_2));
    const layerBytes = 2 * kvHeads * headDim * blockSize * 2, blockBytes = layers * layerBytes;
    const blocks = 32 * decodeContext / blockSize;
    const address = kernels.alloc(blocks * blockBytes);
    const sizes = { blockBytes, layerBytes, numKvHeads: kvHeads, headDim, blockSize };
    const linear = (matrix: PackedMatrix) => ({ matrix, bias: 0n });
    const { qkv, output, gateUp, down, head } = this.matrices;
    this.#decoder = kernels.decoder(
      {
        ...{ hiddenSize: hidden, numHeads: heads, intermediateSize: intermediate },
        ...{ rmsNormEps: 1e-5, roundActivations: rounds },
      },
      {
        layers: qkv.map((_, i) => ({
          ...{ inputNorm: norm, postAttentionNorm: norm, queryNorm: 0n, keyNorm: 0n },
          ...{ qkv: linear(qkv[i]), output: linear(output[i]) },
          ...{ gateUp: linear(gateUp[i]), down: linear(down[i]) },
        })),
        ...{ embedding: head[0], lmHead: head[0], finalNorm: norm, ropeTable },
      },
      { address, type: "bfloat16", ...sizes },
      maxRows,
    );
  }

  put(array: Float32Array | Int32Array): KernelAddress {
    const address = this.kernels.alloc(array.byteLength);
    this.kernels.bytes(address, array.byteLength).set(new Uint8Array(array.buffer));
    return address;
  }

  weightBytes(name: keyof Model["matrices"]): number {
    return this.matrices[name].reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Multiplies `m` rows with every matrix of a kind. */
  multiply(name: keyof Model["matrices"], m: number): void {
    for (const matrix of this.matrices[name]) {
      this.#gemm(this.#buffers.normed, matrix, this.#outputOf(name), m);
    }
  }

  #outputOf(name: keyof Model["matrices"]): KernelAddress {
    const { x, qkv, wide, logits } = this.#buffers;
    return { qkv, output: x, gateUp: wide, down: x, head: logits }[name];
  }

  #gemm(x: KernelAddress, weights: PackedMatrix, y: KernelAddress, m: number): void {
    this.kernels.gemm(x, weights.k, weights, 0n, y, weights.n, m, this.rounds);
  }

  /** A step as a function: `sequences` sequences of `context` tokens, of which `queries` are new. */
  prepareStep(sequences: number, context: number, queries: number): () => void {
    const tokens = sequences * queries, maxBlocks = Math.ceil(context / blockSize);
    const each = <T>(count: number, value: (i: number) => T) =>
      Array.from({ length: count }, (_, i) => value(i));
    const position = (row: number) => context - queries + row % queries;
    const block = (row: number) =>
      Math.floor(row / queries) * maxBlocks + Math.floor(position(row) / blockSize);
    const integers = (values: number[]) => this.put(Int32Array.from(values));
    const ids = integers(each(tokens, (i) => i * 7919 % this.shape.vocab));
    const slots = integers(each(tokens, (i) => block(i) * blockSize + position(i) % blockSize));
    const batch: DecoderBatch = {
      ...{ tokenIds: ids, positions: integers(each(tokens, position)), slots },
      ...{ numSequences: sequences, numTokens: tokens, maxBlocks, maxContextLen: context },
      queryStarts: integers(each(sequences + 1, (i) => i * queries)),
      contextLens: integers(each(sequences, () => context)),
      blockTables: integers(each(sequences * maxBlocks, (i) => i)),
    };
    const lastRow = BigInt((tokens - sequences) * this.shape.hidden * 4);
    const sampled = this.kernels.alloc(sequences * 4);

    return () => {
      const { kernels } = this, { logits } = this.#buffers, { vocab } = this.shape;
      const hidden = this.#decoder.forward(batch);
      this.#gemm(hidden + lastRow, this.matrices.head[0], logits, sequences);
      kernels.argmax(logits, vocab, sampled, sequences, vocab);
    };
  }
}

/** An operation to time on one kernel set; `bestMs` is its best round so far. */
interface Case {
  readonly set: KernelSet;
  readonly name: string;
  readonly rows: number;
  readonly flops: number;
  readonly bytes: number;
  readonly run: () => void;
  bestMs: number;
}

/**
 * The cases of a model in the order of measurement. The plain read has its own memory, as large as the
 * weights and read as rarely, so that neither finds more of its memory in the caches.
 */
function casesOf(model: Model): Case[] {
  const { kernels } = model, set = kernels.name;
  const names = Object.keys(model.matrices) as (keyof Model["matrices"])[];
  const weights = names.reduce((sum, name) => sum + model.weightBytes(name), 0);
  const region = kernels.alloc(weights);
  kernels.bytes(region, weights).fill(1);
  const make = (name: string, rows: number, bytes: number, run: () => void): Case => (
    { set, name, rows, flops: bytes * rows, bytes, run, bestMs: Infinity }
  );
  const read = make("read", 0, weights, () => kernels.readMemory(region, weights));
  const products = names.flatMap((name) =>
    (name === "head" ? [1, 8] : [1, 8, 64]).map((rows) =>
      make(name, rows, model.weightBytes(name), () => model.multiply(name, rows))
    )
  );
  const shapes = [[1, decodeContext, 1], [8, decodeContext, 1], [32, decodeContext, 1], [
    1,
    512,
    512,
  ]];
  const steps = shapes.map(([sequences, context, queries]) => {
    const name = queries === 1 ? "decode" : "prefill";
    const run = model.prepareStep(sequences, context, queries);
    return make(name, sequences * queries, weights, run);
  });
  return [read, ...products, ...steps];
}

function measure(cases: readonly Case[], rounds: number): void {
  for (let round = 0; round <= rounds; round++) {
    for (const one of cases) {
      const startMs = performance.now();
      one.run();
      // The first round warms up pages and code.
      if (round > 0) one.bestMs = Math.min(one.bestMs, performance.now() - startMs);
    }
  }
}

function report(cases: readonly Case[]): void {
  const gigabytes = (one: Case) => one.bytes / one.bestMs / 1e6;
  console.log("set         op       rows        ms   GFLOP/s    GB/s  of read  tokens/s");
  for (const one of cases) {
    const read = cases.find(({ set, name }) => set === one.set && name === "read")!;
    const isStep = one.name === "decode" || one.name === "prefill";
    console.log([
      one.set.padEnd(11),
      one.name.padEnd(8),
      String(one.rows).padStart(4),
      one.bestMs.toFixed(2).padStart(9),
      (one.flops / one.bestMs / 1e6).toFixed(1).padStart(9),
      gigabytes(one).toFixed(1).padStart(7),
      `${(100 * gigabytes(one) / gigabytes(read)).toFixed(0)}%`.padStart(8),
      isStep ? (one.rows / one.bestMs * 1000).toFixed(0).padStart(9) : "",
    ].join(" "));
  }
}

async function main(): Promise<void> {
  const options = parseArgs(Deno.args, {
    string: ["sets", "models", "threads", "rounds"],
    boolean: ["float32-activations", "pin"],
    default: { models: "135M", threads: "2", rounds: "5" },
  });
  const threads = Number(options.threads);
  const available = kernelSetStates().filter(({ unavailable }) => unavailable === null);
  const sets = (options.sets?.split(",") ?? available.map(({ set }) => set)) as KernelSet[];
  for (const name of options.models.split(",")) {
    const models: Model[] = [];
    const cpus = options.pin ? allowedCpus().slice(0, threads) : undefined;
    for (const set of sets) {
      const kernels = await loadCpuKernels({ set, threads, cpus });
      models.push(new Model(kernels, shapes[name], !options["float32-activations"]));
    }
    const perModel = models.map(casesOf);
    // Each case runs on all sets in turn, so that the machine's good and bad moments hit all of them.
    const interleaved = perModel[0].flatMap((_, i) => perModel.map((cases) => cases[i]));
    measure(interleaved, Number(options.rounds));
    console.log(`\n${name}, ${threads} threads`);
    report(perModel.flat());
    for (const model of models) model.kernels.close();
  }
}

if (self.name === "role:kernel") runKernelWorker();
else if (import.meta.main) await main();
