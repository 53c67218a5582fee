/** What the kernels of a decoder have to compute: each check fails with what was wrong. */
import assert from "node:assert/strict";
import { type Bench, directory } from "../software_device/device.ts";
import {
  type AttentionCase,
  DecoderBench,
  errorOf,
  randomValues,
  runAttention,
} from "./decoder_bench.ts";

/** Rounding of results to the type; sums are in float32. */
export const roundings = { float32: 0, float16: 2 ** -11, bfloat16: 2 ** -8 } as const;
export const float32Error = 2e-6;

export function checkLargest(bench: DecoderBench): void {
  const width = 300;
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
}

/** A layer for several numbers of rows: right, and a row's bits the same in each. */
export function checkLinear(bench: DecoderBench, outputs: number, inputs: number): void {
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

/** Norms of chosen rows, embeddings, SiLU. */
export function checkRows(bench: DecoderBench): void {
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
export function checkHeads(bench: DecoderBench): void {
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

/** Runs that show whether the kernels of each file do their work, for mutants of them. */
export const decoderRuns: Record<string, (bench: Bench) => void> = {
  linear: (on) => withBench(on, (bench) => checkLinear(bench, 33, 1040)),
  rows: (on) =>
    withBench(on, (bench) => {
      checkRows(bench);
      checkLargest(bench);
    }),
  attention: (on) => {
    for (const multiprocessors of [0, 1000]) {
      const given: AttentionCase = {
        ...{ shape: { heads: 2, kvHeads: 1, headDim: 16 }, blockShift: 4, window: 80 },
        ...{ lengths: [270], rows: [{ sequence: 0, position: 269 }] },
      };
      withBench(
        on,
        (bench) => {
          const { found, truth } = runAttention(bench, given, 3);
          const error = errorOf(found, truth);
          assert.ok(error <= float32Error + roundings.bfloat16, `error ${error}`);
        },
        given,
        multiprocessors,
      );
    }
  },
};

function withBench(
  { cuda }: Bench,
  run: (bench: DecoderBench) => void,
  given?: AttentionCase,
  multiprocessors = 0,
): void {
  const options = { from: directory! };
  const bench = new DecoderBench(cuda, "bfloat16", given?.shape, multiprocessors, options);
  run(bench);
  bench.close();
}
