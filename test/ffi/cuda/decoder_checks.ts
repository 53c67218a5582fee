/** What the kernels of a decoder have to compute: each check fails with what was wrong. */
import assert from "node:assert/strict";
import {
  elementBytes,
  fastPaths,
  type KernelPaths,
  type NarrowFormats,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import { e4m3Values, toE4m3 } from "../../../src/model/fp8.ts";
import { LibraryLinear, libraryWorkspaceBytes } from "../../../ffi/cuda_kernels/library_linear.ts";
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

/** Paths with fewer of the fast ones. */
export const unfusedPaths: KernelPaths = { ...fastPaths, fused: false, programmatic: false };
export const plainPaths: KernelPaths = { ...unfusedPaths, tensorCores: false };

/** All that can be stored in 8 bits. */
export const narrowFormats: NarrowFormats = { weights: "float8_e4m3", cache: "float8_e4m3" };

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

/** Three parts of five rows become rows, and the rows' parts are apart again. */
export function checkParts(bench: DecoderBench): void {
  const parts = 3, rows = 5, width = 300;
  const count = parts * rows * width;
  const apart = Float32Array.from({ length: count }, (_, i) => i);
  const whole = Float32Array.from({ length: count }, (_, i) => {
    const row = Math.floor(i / (parts * width)), part = Math.floor(i / width) % parts;
    return (part * rows + row) * width + i % width;
  });
  const places = (address: bigint) => ({
    apart: { address, part: rows * width * 4, row: width * 4 },
    whole: { address, part: width * 4, row: parts * width * 4 },
  });
  const one = places(bench.upload(apart)), other = places(bench.room(count * 4));
  bench.kernels.moveParts(one.apart, other.whole, width * 4, rows, parts);
  assert.deepEqual(bench.floats(other.whole.address, count), whole);
  bench.kernels.moveParts(other.whole, one.apart, width * 4, rows, parts);
  assert.deepEqual(bench.floats(one.apart.address, count), apart);
}

/** Layers of some widths for several numbers of rows: right, and a row's bits the same in each. */
export function checkLinear(bench: DecoderBench, outputs: number, inputs: number, rows = 19): void {
  const { type } = bench;
  const { values: w, ...matrix } = bench.weights(randomValues(1, outputs * inputs, type), outputs);
  const x = randomValues(2, rows * inputs, type), bias = randomValues(3, outputs, type);
  const layer = { ...matrix, bias: bench.upload(bias), outputs, inputs };
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
    // The kernel for few rows, where there is one, adds to zeros.
    const sum = bench.upload(new Float32Array(some.length));
    bench.kernels.linearAdd(layer, at, sum, count);
    assert.deepEqual(bench.floats(sum, some.length), some, `${type}: ${count} rows added`);
  }
  const sum = bench.upload(all);
  bench.kernels.linear({ ...layer, bias: 0n }, at, sum, rows, "add");
  const added = bench.floats(sum, rows * outputs);
  const twice = truth.map((value, i) => 2 * value - bias[i % outputs]);
  assert.ok(errorOf(added, twice) <= float32Error, `${type}: y += x W^T`);
}

/**
 * A decode step of two layers: the kernels of one bench give the bits of the other's.
 * @param lengths of the contexts of its rows; one more row fills up the batch
 */
export function checkLayer(
  bench: DecoderBench,
  other: DecoderBench,
  lengths: readonly number[],
): void {
  const { type, shape: { heads, kvHeads, headDim } } = bench;
  const hidden = heads * headDim,
    intermediate = bench.formats.weights ? 272 : 264,
    blockSize = 8,
    rows = lengths.length;
  const maxBlocks = Math.ceil(Math.max(...lengths) / blockSize), numBlocks = rows * maxBlocks;
  let seed = 30;
  const vector = (length: number) => bench.upload(randomValues(seed++, length, "float32"));
  const matrix = (outputs: number, inputs: number, bias: boolean) => {
    const random = randomValues(seed++, outputs * inputs, type).map((value) => value / 8);
    const { weights, scales } = bench.weights(random, outputs);
    return { weights, scales, bias: bias ? vector(outputs) : 0n, outputs, inputs };
  };
  const qkv = matrix((heads + 2 * kvHeads) * headDim, hidden, true);
  const output = matrix(hidden, hidden, false), down = matrix(hidden, intermediate, false);
  const gateUp = matrix(2 * intermediate, hidden, false);
  const norms = [vector(hidden), vector(hidden)];
  const headNorms = { query: vector(headDim), key: vector(headDim), epsilon: 1e-5 };
  const rope = vector(Math.max(...lengths) * headDim);
  const x = randomValues(seed++, (rows + 1) * hidden, "float32");
  const blockElements = 2 * kvHeads * headDim * blockSize;
  const cached = randomValues(seed++, numBlocks * blockElements, type);
  const words = (values: readonly number[]) => bench.upload(Int32Array.from(values));
  const counted = (value: (row: number) => number) =>
    Array.from({ length: rows }, (_, i) => value(i));
  const length = (row: number) => lengths[row];
  const blockOf = (row: number, position: number) =>
    row * maxBlocks + Math.floor(position / blockSize);
  const tables = {
    rows: rows + 1,
    positions: words([...counted((row) => length(row) - 1), -1]),
    slots: words([
      ...counted((row) => {
        const position = length(row) - 1;
        return blockOf(row, position) * blockSize + position % blockSize;
      }),
      -1,
    ]),
    sequences: words([...counted((row) => row), 0]),
    blockTables: words(Array.from({ length: numBlocks }, (_, i) => i)),
    maxBlocks,
    starts: words([...counted((row) => row), rows, rows]),
    lengths: words([...counted(length), 0]),
    numSequences: rows + 1,
    mostRows: 1,
    maxContextLen: Math.max(...lengths),
  };
  const step = ({ kernels }: DecoderBench) => {
    const residual = bench.upload(x), cache = bench.narrowCache(cached);
    const room = (width: number) => bench.upload(new Float32Array((rows + 1) * width));
    const [normed, activated] = [room(hidden), room(intermediate)];
    const [heads, attended, both] = [room(qkv.outputs), room(hidden), room(gateUp.outputs)];
    const partialsBytes = kernels.partialsBytes(tables.maxContextLen);
    const options = {
      window: 0,
      partials: bench.room(partialsBytes),
      partialsBytes,
      counters: bench.upload(new Uint8Array(kernels.countersBytes)),
    };
    const place = { address: cache, blockStride: blockElements, blockShift: 3 };
    const normedBy = (norm: bigint) => ({
      ...{ x: residual, norm, indices: 0n, rows: rows + 1, epsilon: 1e-5 },
    });
    for (let layer = 0; layer < 2; layer++) {
      kernels.normLinear(normedBy(norms[0]), qkv, heads, normed);
      kernels.attention(heads, headNorms, rope, tables, place, attended, options);
      kernels.linearAdd(output, attended, residual, rows + 1);
      kernels.normGateUp(normedBy(norms[1]), gateUp, activated, normed, both);
      kernels.linearAdd(down, activated, residual, rows + 1);
    }
    bench.cuda.synchronizeStream(bench.stream);
    bench.cuda.synchronizeStream(other.stream);
    const cacheBytes = cached.length * elementBytes[bench.formats.cache ?? type];
    return [bench.bytes(residual, rows * hidden * 4), bench.bytes(cache, cacheBytes)] as const;
  };
  const [found, foundCache] = step(bench), [expected, expectedCache] = step(other);
  assert.ok(new Float32Array(found.buffer).every(Number.isFinite), `${type}: finite`);
  assert.deepEqual(found, expected, `${type}, ${rows} rows: the same bits`);
  assert.deepEqual(foundCache, expectedCache, `${type}, ${rows} rows: the same cache`);
}

/**
 * Attention of rows to their contexts: right, and a row's bits the same alone, in a decode step, and with the
 * parts of its context apart. The rows of a sequence are its last ones.
 */
export function checkAttention(
  open: (multiprocessors: number) => DecoderBench,
  given: AttentionCase,
): void {
  const { rows, lengths, shape: { heads, headDim } } = given;
  const seed = 5, width = heads * headDim;
  const bench = open(0);
  const { found, truth } = runAttention(bench, given, seed);
  const error = errorOf(found, truth);
  assert.ok(error <= float32Error + roundings[bench.type], `${bench.type}: error ${error}`);
  const of = (row: number) => found.slice(row * width, (row + 1) * width);

  const newest = lengths.flatMap((_, sequence) => {
    const row = rows.findLastIndex((row) => row.sequence === sequence);
    return row < 0 ? [] : [row];
  });
  const alone = runAttention(bench, { ...given, rows: rows.slice(-1) }, seed);
  assert.deepEqual(alone.found, of(rows.length - 1), `${bench.type}: alone`);
  for (const multiprocessors of [0, 1000]) {
    const step = { ...given, rows: newest.map((row) => rows[row]) };
    const decoded = runAttention(open(multiprocessors), step, seed, "decode");
    newest.forEach((row, i) => {
      const decodedRow = decoded.found.slice(i * width, (i + 1) * width);
      assert.deepEqual(decodedRow, of(row), `${bench.type}: decoded, ${multiprocessors}`);
    });
  }
}

/** Norms of chosen rows, embeddings, SiLU. */
export function checkRows(bench: DecoderBench): void {
  const { type, kernels } = bench;
  const rows = 3, width = 520, bound = float32Error + roundings[type];
  const x = randomValues(4, rows * width, "float32"), weight = randomValues(5, width, "float32");
  const indices = [2, 0];
  const y = bench.room(indices.length * width * 4);
  const normedRows = {
    x: bench.upload(x),
    norm: bench.upload(weight),
    indices: bench.upload(Int32Array.from(indices)),
    rows: indices.length,
    epsilon: 1e-5,
  };
  kernels.rmsNorm(normedRows, y, width);
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
      ...{ starts: 0n, lengths: 0n, numSequences: 1, mostRows: 1 },
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

/** Numbers that go into a cache of 8 bits, and all that come out of it. */
export function checkNarrowCache(bench: DecoderBench): void {
  const { type, kernels, shape: { headDim } } = bench;
  const sorted = e4m3Values.filter((value) => value >= 0).sort((a, b) => a - b);
  const ties = sorted.slice(1).map((value, i) => (value + sorted[i]) / 2);
  const beside = (value: number) => [value * (1 - 2 ** -20), value, value * (1 + 2 ** -20)];
  const positive = [
    ...[...sorted, ...ties].flatMap(beside),
    ...[1e-45, 1e-38, 463.9, 464, 465, 1e30, Infinity, NaN],
  ];
  const values = [...positive, ...positive.map((value) => -value)];
  const rows = Math.ceil(values.length / headDim), width = 3 * headDim;
  const qkv = new Float32Array(rows * width);
  values.forEach((value, i) => {
    qkv[Math.floor(i / headDim) * width + 2 * headDim + i % headDim] = value;
  });
  const words = (value: (row: number) => number, count = rows) =>
    bench.upload(Int32Array.from({ length: count }, (_, row) => value(row)));
  // A block of 8 tokens for each row, which is the first of its sequence.
  const tablesOf = (rows: number) => ({
    ...{ rows, positions: words(() => 0), slots: words((row) => row << 3) },
    ...{ sequences: words((row) => row), blockTables: words((row) => row), maxBlocks: 1 },
    ...{ starts: words((row) => row, rows + 1), lengths: words(() => 1) },
    ...{ numSequences: rows, mostRows: 1, maxContextLen: 1 },
  });
  const blockStride = 2 * 8 * headDim;
  const cache = bench.upload(new Uint8Array(rows * blockStride));
  const place = { address: cache, blockStride, blockShift: 3 };
  const norms = { query: 0n, key: 0n, epsilon: 1e-6 };
  const rope = Float32Array.from({ length: headDim }, (_, i) => i < headDim / 2 ? 1 : 0);
  kernels.prepareHeads(bench.upload(qkv), norms, bench.upload(rope), tablesOf(rows), place);
  const stored = bench.bytes(cache, rows * blockStride);
  values.forEach((value, i) => {
    const at = Math.floor(i / headDim) * blockStride + 8 * headDim + i % headDim;
    assert.equal(stored[at], toE4m3(Math.fround(value)), `${type}: ${value}`);
  });

  const all = new Uint8Array(256 / headDim * blockStride);
  e4m3Values.forEach((_, code) => {
    all[Math.floor(code / headDim) * blockStride + 8 * headDim + code % headDim] = code;
  });
  const output = bench.room(256 * 4),
    queries = bench.upload(new Float32Array(256 / headDim * width));
  const options = { window: 0, partials: 0n, partialsBytes: 0, counters: bench.room(16) };
  const filled = { ...place, address: bench.upload(all) };
  kernels.attend(queries, tablesOf(256 / headDim), filled, output, options);
  bench.widened(output, 256).forEach((value, code) => {
    const expected = e4m3Values[code];
    assert.ok(
      value === expected || Number.isNaN(value) && Number.isNaN(expected),
      `${code}: ${value}`,
    );
  });
}

/** A layer whose rings wrap, against float64. */
function checkSums(bench: DecoderBench, rows: number, mode: "set" | "add"): void {
  const outputs = 40, inputs = 1040;
  const { values: w, ...matrix } = bench.weights(
    randomValues(1, outputs * inputs, bench.type),
    outputs,
  );
  const x = randomValues(2, rows * inputs, bench.type);
  const layer = { ...matrix, bias: 0n, outputs, inputs };
  const y = bench.upload(new Float32Array(rows * outputs));
  if (mode === "add") bench.kernels.linearAdd(layer, bench.narrow(x), y, rows);
  else bench.kernels.linear(layer, bench.narrow(x), y, rows, "set");
  const truth = Float64Array.from({ length: rows * outputs }, (_, i) => {
    const row = Math.floor(i / outputs) * inputs, output = i % outputs * inputs;
    let sum = 0;
    for (let k = 0; k < inputs; k++) sum += w[output + k] * x[row + k];
    return sum;
  });
  const error = errorOf(bench.floats(y, rows * outputs), truth);
  assert.ok(error <= float32Error, `error ${error}`);
}

/** A layer that adds, by cuBLASLt: kernels that follow each other add its sums, then its bias. */
function checkLibrary(bench: DecoderBench): void {
  const outputs = 40, inputs = 64, rows = 19, tileRows = 16;
  const { values: w, ...matrix } = bench.weights(
    randomValues(1, outputs * inputs, bench.type),
    outputs,
  );
  const bias = randomValues(2, outputs, "float32"),
    before = randomValues(3, rows * outputs, "float32");
  const layer = { ...matrix, bias: bench.upload(bias), outputs, inputs };
  const x = randomValues(4, 2 * tileRows * inputs, bench.type);
  const room = {
    workspace: bench.room(libraryWorkspaceBytes),
    sums: bench.room(tileRows * outputs * 4),
  };
  const options = { from: directory! };
  bench.kernels.useLibrary(
    new LibraryLinear(tileRows, bench.type, [layer], room, bench.stream, options),
  );
  bench.kernels.computeByLibrary([{ first: 0, count: rows }]);
  const y = bench.upload(before);
  bench.kernels.linear(layer, bench.narrow(x), y, rows, "add");
  bench.kernels.computeByLibrary([]);
  const truth = Float64Array.from(before, (value, i) => {
    const row = Math.floor(i / outputs) * inputs, output = i % outputs;
    let sum = value + bias[output];
    for (let k = 0; k < inputs; k++) sum += w[output * inputs + k] * x[row + k];
    return sum;
  });
  const error = errorOf(bench.floats(y, rows * outputs), truth);
  assert.ok(error <= float32Error, `by cuBLASLt: error ${error}`);
}

/** Runs that show whether the kernels of each file do their work, for mutants of them. */
export const decoderRuns: Record<string, (bench: Bench) => void> = {
  linear: (on) => withBenches(on, [plainPaths], ([bench]) => checkLinear(bench, 33, 1040)),
  linear_few: (on) => {
    // Rings of 6, 4 and 2 stages.
    for (const sharedKiB of [112, 80, 48]) {
      withBenches(on, [fastPaths], ([bench]) => checkSums(bench, 2, "add"), 0, sharedKiB);
    }
    withBenches(on, [fastPaths, unfusedPaths], ([bench, other]) => checkLayer(bench, other, [20]));
  },
  linear_many: (on) =>
    withBenches(on, [unfusedPaths, fastPaths], ([bench, fast]) => {
      for (const rows of [3, 70]) checkSums(bench, rows, "set");
      // Launched programmatically behind norms: nine rows are too many for the fused kernels.
      checkLayer(fast, bench, new Array(9).fill(2));
    }),
  rows: (on) =>
    withBenches(on, [fastPaths, unfusedPaths], ([bench, other]) => {
      checkRows(bench);
      checkParts(bench);
      checkParts(other);
      checkLargest(bench);
      if (!bench.formats.weights) checkLibrary(bench);
      // Nine rows are too many for the fused kernels: norms and SiLU are launched programmatically.
      checkLayer(bench, other, new Array(9).fill(2));
    }),
  attention: (on) => {
    for (const multiprocessors of [0, 1000]) {
      withBenches(
        on,
        [plainPaths],
        ([bench]) => {
          const { found, truth } = runAttention(bench, attentionCase, 3);
          const error = errorOf(found, truth);
          assert.ok(error <= float32Error + roundings.bfloat16, `error ${error}`);
        },
        multiprocessors,
      );
    }
  },
  decode_attention: (on) => {
    // Parts together, with rings of 3 and 2 stages, and apart.
    for (const [multiprocessors, sharedKiB] of [[0, 112], [0, 48], [1000, 112]]) {
      withBenches(
        on,
        [fastPaths],
        ([bench]) => {
          const { found, truth } = runAttention(bench, attentionCase, 3, "decode");
          const error = errorOf(found, truth);
          assert.ok(error <= float32Error + roundings.bfloat16, `error ${error}`);
        },
        multiprocessors,
        sharedKiB,
      );
    }
    withBenches(
      on,
      [fastPaths, unfusedPaths],
      ([bench, other]) => checkLayer(bench, other, [1, 70]),
    );
  },
  fp8_weights: (on) =>
    withBenches(on, [fastPaths], ([bench]) => {
      if (bench.formats.weights) bench.weights(randomValues(1, 3 * 528, bench.type), 3);
    }),
  prompt_attention: (on) =>
    withBenches(on, [fastPaths], ([bench]) => {
      const { found, truth } = runAttention(bench, attentionCase, 3);
      const error = errorOf(found, truth);
      assert.ok(error <= float32Error + roundings.bfloat16, `error ${error}`);
    }),
};

/** Rows of more tiles than a ring has stages, in two parts. */
const attentionCase: AttentionCase = {
  ...{ shape: { heads: 2, kvHeads: 1, headDim: 16 }, blockShift: 4, window: 200, lengths: [270] },
  rows: [{ sequence: 0, position: 269 }],
};

/** Runs with everything in 16 bits, then with weights and cache in 8. */
function withBenches(
  { cuda }: Bench,
  paths: readonly KernelPaths[],
  run: (benches: readonly DecoderBench[]) => void,
  multiprocessors = 0,
  sharedKiB = 227,
): void {
  const options = { from: directory! }, shape = attentionCase.shape;
  const device = { sharedMemoryPerBlockBytes: sharedKiB << 10 };
  for (const formats of [{}, narrowFormats]) {
    const benches = paths.map((path) =>
      new DecoderBench(cuda, "bfloat16", shape, multiprocessors, path, options, device, formats)
    );
    run(benches);
    benches.forEach((bench) => bench.close());
  }
}
