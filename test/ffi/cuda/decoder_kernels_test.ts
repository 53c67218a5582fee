/** The kernels of a decoder against float64, on the software device and on a GPU where there is one. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCuda } from "../../../ffi/cuda/open.ts";
import type { ElementType, HeadShape } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { OpenOptions } from "../../../ffi/library.ts";
import { isLongRun } from "../../long.ts";
import { configure, deviceTest, directory, freshBench } from "../software_device/device.ts";
import { takeRaces } from "../software_device/races.ts";
import {
  type AttentionCase,
  DecoderBench,
  elementTypes,
  errorOf,
  randomValues,
  runAttention,
} from "./decoder_bench.ts";

/** Rounding of results to the type; sums are in float32. */
const roundings = { float32: 0, float16: 2 ** -11, bfloat16: 2 ** -8 } as const;
const float32Error = 2e-6;

interface Place {
  readonly name: string;
  readonly unavailable: string | null;
  open(): Cuda;
  readonly options: OpenOptions;
}

const places: readonly Place[] = [
  {
    name: "the software device",
    unavailable: directory === null ? "no C++ compiler to build it" : null,
    open: () => freshBench("progress=20").cuda,
    options: { from: directory ?? undefined },
  },
  { name: "this host's device", unavailable: noDevice(), open: openHost, options: {} },
];

function openHost(): Cuda {
  const cuda = openCuda();
  cuda.setDevice(0);
  return cuda;
}

function noDevice(): string | null {
  try {
    return openCuda().deviceCount() > 0 ? null : "no GPU";
  } catch {
    return "no GPU";
  }
}

type Open = (type: ElementType, shape?: HeadShape, multiprocessors?: number) => DecoderBench;

for (const { name, unavailable, open, options } of places) {
  const test = (what: string, run: (open: Open) => void) =>
    Deno.test({
      name: `decoder kernels on ${name}: ${what}` +
        (unavailable === null ? "" : ` (skipped: ${unavailable})`),
      ignore: unavailable !== null,
      fn() {
        const cuda = open();
        const opened: DecoderBench[] = [];
        run((type, shape, multiprocessors) => {
          const bench = new DecoderBench(cuda, type, shape, multiprocessors, options);
          opened.push(bench);
          return bench;
        });
        opened.forEach((bench) => bench.close());
      },
    });

  test("a row of a linear layer has the same bits in every batch", (open) => {
    for (const type of elementTypes) {
      for (const [outputs, inputs] of [[40, 112], [33, 16], [32, 520]]) {
        checkLinear(open(type), outputs, inputs);
      }
    }
  });

  test("norms, embeddings, activations", (open) => {
    for (const type of elementTypes) checkRows(open(type));
  });

  test("the largest logit, the lowest of equals, and rows without one", (open) => {
    const bench = open("float32"), width = 300;
    const rows = [
      { at: [[7, 3], [9, 3]], expected: 7 },
      { at: [[299, 5]], expected: 299 },
      { at: [[0, -0], [1, 0]], expected: 0 },
      { at: [[5, NaN], [6, 9]], expected: -1 },
      { at: [[5, Infinity]], expected: -1 },
      { at: Array.from({ length: width }, (_, i) => [i, -Infinity]), expected: -1 },
    ];
    const logits = new Float32Array(rows.length * width).fill(-1);
    rows.forEach(({ at }, row) => {
      for (const [i, value] of at) logits[row * width + i] = value;
    });
    const indices = bench.room(rows.length * 4);
    bench.kernels.largestLogit(bench.upload(logits), indices, rows.length, width);
    const found = new Int32Array(bench.bytes(indices, rows.length * 4).buffer);
    assert.deepEqual([...found], rows.map(({ expected }) => expected));
  });

  test("head norms and rotations", (open) => {
    for (const type of elementTypes) checkHeads(open(type, { heads: 3, kvHeads: 1, headDim: 96 }));
  });

  for (const given of attentionCases()) {
    const { heads, kvHeads, headDim } = given.shape;
    const window = given.window > 0 ? `, window of ${given.window}` : "";
    test(
      `attention of ${heads} heads of ${headDim} to ${kvHeads}, blocks of ${
        1 << given.blockShift
      }` +
        `${window}: parts together and apart`,
      (open) => {
        for (const type of given.types) {
          const together = runAttention(open(type, given.shape, 0), given, 5);
          const error = errorOf(together.found, together.truth);
          assert.ok(error <= float32Error + roundings[type], `${type}: error ${error}`);
          const apart = runAttention(open(type, given.shape, 1000), given, 5);
          assert.deepEqual(apart.found, together.found, `${type}: parts apart`);
          const alone = given.rows.slice(-1);
          const last = runAttention(open(type, given.shape, 0), { ...given, rows: alone }, 5);
          assert.deepEqual(last.found, together.found.slice(-last.found.length), `${type}: alone`);
        }
      },
    );
  }
}

function checkLinear(bench: DecoderBench, outputs: number, inputs: number): void {
  const { type } = bench;
  const rows = 19;
  const w = randomValues(1, outputs * inputs, type), x = randomValues(2, rows * inputs, type);
  const bias = randomValues(3, outputs, type);
  const layer = {
    weights: bench.narrow(w),
    bias: bench.upload(bias),
    outputs,
    inputs,
  };
  const at = bench.narrow(x);
  const all = bench.linear(layer, at, rows);
  const truth = new Float64Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = bias[output];
      for (let i = 0; i < inputs; i++) sum += w[output * inputs + i] * x[row * inputs + i];
      truth[row * outputs + output] = sum;
    }
  }
  const error = errorOf(all, truth);
  assert.ok(error <= float32Error, `${type} ${outputs} x ${inputs}: error ${error}`);
  for (const count of [1, 2, 4, 5, 8, 9]) {
    const some = bench.linear(layer, at, count);
    assert.deepEqual(some, all.slice(0, some.length), `${type}: ${count} of ${rows} rows`);
  }
  const sum = bench.upload(all);
  bench.kernels.linear({ ...layer, bias: 0n }, at, sum, rows, "add");
  const added = bench.floats(sum, rows * outputs);
  const twice = truth.map((value, i) => 2 * value - bias[i % outputs]);
  assert.ok(errorOf(added, twice) <= float32Error, `${type}: y += x W^T`);
}

function checkRows(bench: DecoderBench): void {
  const { type, kernels } = bench;
  const rows = 3, width = 520, bound = float32Error + roundings[type];
  const x = randomValues(4, rows * width, "float32"), weight = randomValues(5, width, "float32");
  const indices = [2, 0];
  const y = bench.room(indices.length * width * 4);
  kernels.rmsNorm(
    bench.upload(x),
    bench.upload(weight),
    bench.upload(Int32Array.from(indices)),
    y,
    indices.length,
    width,
    1e-5,
  );
  const normed = Float64Array.from(indices.flatMap((row) => {
    const values = Array.from(x.subarray(row * width, (row + 1) * width));
    const squares = values.reduce((sum, value) => sum + value * value, 0);
    return values.map((value, i) => value / Math.sqrt(squares / width + 1e-5) * weight[i]);
  }));
  assert.ok(errorOf(bench.widened(y, normed.length), normed) <= bound, `${type}: norm`);

  const table = randomValues(6, 5 * width, type), tokens = [4, 0, 4];
  kernels.embed(bench.narrow(table), bench.upload(Int32Array.from(tokens)), y, 1, width);
  assert.deepEqual(bench.floats(y, width), table.slice(4 * width));

  const gateUp = randomValues(7, 2 * rows * width, "float32");
  kernels.siluMultiply(bench.upload(gateUp), y, rows, width / 2);
  const activated = Float64Array.from({ length: rows * width / 2 }, (_, i) => {
    const at = Math.floor(i / (width / 2)) * width + i % (width / 2);
    return gateUp[at] / (1 + Math.exp(-gateUp[at])) * gateUp[at + width / 2];
  });
  assert.ok(errorOf(bench.widened(y, activated.length), activated) <= bound, `${type}: SiLU`);
}

/** One row of queries, keys and values at position 3: norms, rotation, and where the cache gets them. */
function checkHeads(bench: DecoderBench): void {
  const { type, kernels, shape: { heads, kvHeads, headDim } } = bench;
  const allHeads = heads + 2 * kvHeads, half = headDim / 2, position = 3, slot = 2 * 8 + 5;
  const qkv = randomValues(8, allHeads * headDim, "float32");
  const norms = [randomValues(9, headDim, "float32"), randomValues(10, headDim, "float32")];
  const angles = randomValues(11, 4 * half, "float32");
  const rope = Float32Array.from({ length: 4 * headDim }, (_, i) => {
    const angle = angles[Math.floor(i / headDim) * half + i % half];
    return i % headDim < half ? Math.cos(angle) : Math.sin(angle);
  });
  const blockElements = 2 * kvHeads * headDim * 8;
  const cache = bench.upload(new Uint8Array(3 * blockElements * 4));
  const at = bench.upload(qkv), word = (value: number) => bench.upload(Int32Array.of(value));
  kernels.prepareHeads(
    at,
    { query: bench.upload(norms[0]), key: bench.upload(norms[1]), epsilon: 1e-5 },
    bench.upload(rope),
    {
      ...{ rows: 1, positions: word(position), slots: word(slot), sequences: word(0) },
      ...{ blockTables: word(2), maxBlocks: 1, maxContextLen: 4 },
    },
    { address: cache, blockStride: blockElements, blockShift: 3 },
  );
  const truth = Float64Array.from({ length: allHeads * headDim }, (_, i) => {
    const head = Math.floor(i / headDim), column = i % headDim, low = column % half;
    const isValue = head >= heads + kvHeads;
    if (isValue) return qkv[i];
    const values = qkv.subarray(head * headDim, (head + 1) * headDim);
    const squares = values.reduce((sum, value) => sum + value * value, 0);
    const weights = norms[head < heads ? 0 : 1];
    const normed = (j: number) => values[j] / Math.sqrt(squares / headDim + 1e-5) * weights[j];
    const cosine = rope[position * headDim + low], sine = rope[position * headDim + half + low];
    const [a, b] = [normed(low), normed(half + low)];
    return column < half ? a * cosine - b * sine : b * cosine + a * sine;
  });
  const queries = bench.floats(at, heads * headDim);
  assert.ok(errorOf(queries, truth.slice(0, heads * headDim)) <= float32Error, `${type}: queries`);
  const cached = bench.widened(cache, 3 * blockElements);
  const keyAt = 2 * blockElements + 5 * headDim;
  const valueAt = keyAt + kvHeads * headDim * 8;
  const found = Float32Array.from(
    [keyAt, valueAt].flatMap((from) => Array.from(cached.subarray(from, from + headDim))),
  );
  const error = errorOf(found, truth.slice(heads * headDim));
  assert.ok(error <= float32Error + roundings[type], `${type}: keys and values, error ${error}`);
  assert.equal(cached.filter((value) => value !== 0).length, 2 * headDim, "and nothing else");
}

function attentionCases(): (AttentionCase & { readonly types: readonly ElementType[] })[] {
  const rowsAt = (...positions: number[]) =>
    positions.map((position) => ({ sequence: 0, position }));
  return [
    {
      ...{ types: elementTypes, shape: { heads: 8, kvHeads: 1, headDim: 64 } },
      ...{ blockShift: 4, window: 0, lengths: [300] },
      rows: rowsAt(0, 63, 64, 255, 256, 299),
    },
    {
      ...{ types: ["bfloat16"], shape: { heads: 6, kvHeads: 2, headDim: 128 } },
      ...{ blockShift: 5, window: 40, lengths: [290, 70] },
      rows: [{ sequence: 1, position: 69 }, ...rowsAt(30, 289)],
    },
    {
      ...{ types: ["float16"], shape: { heads: 2, kvHeads: 2, headDim: 96 } },
      ...{ blockShift: 3, window: 0, lengths: [20, 520] },
      rows: [{ sequence: 1, position: 519 }, { sequence: 0, position: 19 }],
    },
  ];
}

deviceTest("decoder kernels have no race", "kernels=checked", ({ cuda }) => {
  const options = { from: directory! };
  for (let seed = 1; seed <= (isLongRun ? 10 : 1); seed++) {
    configure(`seed=${seed}`);
    for (const multiprocessors of [0, 1000]) {
      const shape = { heads: 2, kvHeads: 1, headDim: 16 };
      const bench = new DecoderBench(cuda, "bfloat16", shape, multiprocessors, options);
      const row = { sequence: 0, position: 269 };
      const lengths = [270];
      runAttention(bench, { shape, blockShift: 4, window: 20, lengths, rows: [row] }, seed);
      bench.close();
    }
    const bench = new DecoderBench(cuda, "bfloat16", undefined, 0, options);
    const inputs = 1040, outputs = 33; // each warp's ring wraps, the last chunk is half a chunk
    const x = bench.narrow(randomValues(1, 9 * inputs, "bfloat16"));
    const weights = bench.narrow(randomValues(2, outputs * inputs, "bfloat16"));
    for (const rows of [1, 9]) bench.linear({ weights, bias: 0n, outputs, inputs }, x, rows);
    checkRows(bench);
    const logits = bench.upload(randomValues(3, 2 * 300, "float32"));
    bench.kernels.largestLogit(logits, bench.room(8), 2, 300);
    bench.close();
  }
  assert.deepEqual(takeRaces("checked"), []);
});
