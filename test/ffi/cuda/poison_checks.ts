/**
 * NaN in a KV cache and in weights. Memory that no token has been written to holds anything, so NaN in it must reach
 * nothing. NaN that belongs to a sequence must stay NaN: by it the host finds out that the model computed
 * garbage. In 8 bits it has codes of its own (0x7f, 0xff), which a kernel could widen to a number.
 */
import assert from "node:assert/strict";
import { fastPaths, type KernelPaths } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import { type Bench, directory } from "../software_device/device.ts";
import { checkLayer, narrowFormats, plainPaths, unfusedPaths } from "./decoder_checks.ts";
import {
  type AttentionCase,
  DecoderBench,
  type Poison,
  randomValues,
  runAttention,
} from "./decoder_bench.ts";

/** Two parts of a context and several tiles; a context of less than a block; a window that begins in a tile. */
const poisonCase: AttentionCase = {
  ...{ shape: { heads: 6, kvHeads: 2, headDim: 16 }, blockShift: 3, window: 280 },
  ...{ lengths: [300, 5], rows: [{ sequence: 0, position: 299 }, { sequence: 1, position: 4 }] },
};

/** Before the window, in both parts of the context, and of the newest token, which a decode step brings itself. */
const poisons: readonly Poison[] = [
  { sequence: 0, position: 10, which: "key", kvHead: 1, column: 1 }, // before the window
  { sequence: 0, position: 19, which: "value", kvHead: 0, column: 2 },
  { sequence: 0, position: 21, which: "key", kvHead: 1, column: 3 },
  { sequence: 0, position: 290, which: "key", kvHead: 0, column: 0 },
  { sequence: 0, position: 100, which: "value", kvHead: 0, column: 15 },
  { sequence: 0, position: 270, which: "value", kvHead: 1, column: 8 },
  { sequence: 0, position: 299, which: "key", kvHead: 0, column: 7 },
  { sequence: 0, position: 299, which: "value", kvHead: 0, column: 6 },
];

/** Whether NaN in an element of the cache belongs into a column of a head of a row. */
function isReached(
  { sequence, position, which, kvHead, column }: Poison,
  row: AttentionCase["rows"][number],
  head: number,
  ofColumn: number,
): boolean {
  const { shape: { heads, kvHeads }, window } = poisonCase;
  const isSeen = sequence === row.sequence && position <= row.position &&
    position > row.position - window;
  // A key decides the weights of all values; a value stands in its own column.
  return isSeen && Math.floor(head / (heads / kvHeads)) === kvHead &&
    (which === "key" || column === ofColumn);
}

/**
 * NaN in what a row sees makes NaN of what depends on it, and of nothing else; NaN in what no row sees changes
 * no bit.
 */
export function checkPoisonedCache(bench: DecoderBench): void {
  const { shape: { heads, headDim }, rows } = poisonCase;
  for (const way of ["attend", "decode"] as const) {
    const of = (changes: Partial<AttentionCase>) =>
      runAttention(bench, { ...poisonCase, ...changes }, 3, way).found;
    const clean = of({ unseen: 0 });
    assert.ok(clean.every(Number.isFinite), `${bench.type}, ${way}: finite`);
    for (const unseen of [NaN, 448]) {
      assertSame(of({ unseen }), clean, `${bench.type}, ${way}: ${unseen} that no row sees`);
    }
    for (const poison of poisons) {
      const found = of({ poison: [poison] });
      const expected = clean.map((value, i) => {
        const row = Math.floor(i / (heads * headDim)), head = Math.floor(i / headDim) % heads;
        return isReached(poison, rows[row], head, i % headDim) ? NaN : value;
      });
      assertSame(found, expected, `${bench.type}, ${way}: ${JSON.stringify(poison)}`);
    }
  }
}

/** Fails with the first difference of two results. */
function assertSame(found: Float32Array, expected: Float32Array, what: string): void {
  const at = found.findIndex((value, i) => !Object.is(value, expected[i]));
  assert.ok(at < 0, `${what}: ${found[at]} in place of ${expected[at]}, element ${at}`);
}

/** What 16 bits hold and 8 bits do not; and infinity that a scale is made of. */
const garbage = [NaN, Infinity, -Infinity] as const;

/**
 * A row of weights with NaN or infinity: in 8 bits its scale is not finite, so its output is not, in every kernel;
 * other outputs keep their bits. So do other rows of x beside one that is NaN.
 */
export function checkPoisonedWeights(bench: DecoderBench): void {
  const { type, kernels } = bench;
  const outputs = 32, inputs = 272, rows = 9, bad = 5; // `bad` of the gates, whose up is bad + outputs / 2
  const x = randomValues(2, rows * inputs, type), sound = randomValues(1, outputs * inputs, type);
  const norm = bench.upload(new Float32Array(inputs).fill(1));
  const layerOf = (values: Float32Array) => {
    const weights = bench.room(values.length), scales = bench.room(outputs * 4);
    kernels.quantizeRows(bench.narrow(values), weights, scales, outputs, inputs);
    // Kernels read weights before the kernel before them has ended: it must not be the one that wrote them.
    kernels.largestLogit(scales, bench.room(4), 1, outputs);
    return { weights, scales, bias: 0n, outputs, inputs };
  };
  /** All that the layer is used for, in float32 [rows, outputs], and gate times up [rows, outputs / 2]. */
  const results = (values: Float32Array, given = x) => {
    const layer = layerOf(values), wide = bench.upload(given), narrow = bench.narrow(given);
    const floats = (address: bigint, count: number) => bench.floats(address, count * outputs);
    const found = [];
    for (const count of [1, 8, rows]) {
      const from = { x: wide, norm, indices: 0n, rows: count, epsilon: 1e-5 };
      const normed = bench.room(count * inputs * 4), both = bench.room(count * outputs * 4);
      const [y, activated] = [bench.room(count * outputs * 4), bench.room(count * outputs * 4)];
      kernels.normLinear(from, layer, y, normed);
      const sums = bench.upload(new Float32Array(count * outputs));
      kernels.linearAdd(layer, narrow, sums, count);
      kernels.normGateUp(from, layer, activated, normed, both);
      found.push({ width: outputs, values: floats(y, count) });
      found.push({ width: outputs, values: floats(sums, count) });
      found.push({ width: outputs / 2, values: bench.widened(activated, count * outputs / 2) });
    }
    return found;
  };
  const expected = results(sound);
  const compare = (
    found: ReturnType<typeof results>,
    isBad: (row: number, column: number) => boolean,
    what: string,
  ) =>
    found.forEach(({ width, values }, n) =>
      values.forEach((value, i) => {
        const row = Math.floor(i / width), column = i % width;
        const where = `${type}, ${what}: result ${n}, row ${row}, output ${column}: ${value}`;
        if (isBad(row, column)) assert.ok(!Number.isFinite(value), where);
        else assert.equal(value, expected[n].values[i], where);
      })
    );
  compare(expected, () => false, "sound");
  for (const value of garbage) {
    const values = sound.slice();
    values[bad * inputs + inputs - 1] = value;
    compare(results(values), (_, column) => column === bad, `weight ${value}`);
  }
  const spoiled = x.slice();
  spoiled[0] = NaN;
  compare(results(sound, spoiled), (row) => row === 0, "row 0 is NaN");
}

/** Runs that notice the mistakes of `kernel_edits.ts`, by kernel file. */
export const poisonRuns: Record<string, (bench: Bench) => void> = {
  decode_attention: (on) => {
    withBench(on, fastPaths, {}, checkPoisonedCache);
    withBench(on, fastPaths, narrowFormats, (bench) => {
      checkPoisonedCache(bench);
      withBench(on, unfusedPaths, narrowFormats, (other) => checkLayer(bench, other, [20]));
    });
  },
  prompt_attention: (on) => {
    for (const formats of [{}, narrowFormats]) {
      withBench(on, unfusedPaths, formats, checkPoisonedCache);
    }
  },
  attention: (on) => {
    for (const formats of [{}, narrowFormats]) {
      withBench(on, plainPaths, formats, checkPoisonedCache);
    }
  },
  fp8_weights: (on) => withBench(on, fastPaths, narrowFormats, checkPoisonedWeights),
};

function withBench(
  { cuda }: Bench,
  paths: KernelPaths,
  formats: DecoderBench["formats"],
  run: (bench: DecoderBench) => void,
): void {
  const options = { from: directory! };
  const bench = new DecoderBench(
    ...[cuda, "bfloat16", poisonCase.shape, 0, paths, options, {}, formats] as const,
  );
  run(bench);
  bench.close();
}
