/** What every CPU kernel set has to do, against float64 references. */
import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import type {
  CpuKernels,
  KernelAddress,
  KvCacheView,
  PackedMatrix,
  StorageType,
} from "../../ffi/cpu_kernels/kernels.ts";
import {
  Arrays,
  asStored,
  matmul,
  normals,
  relativeError,
  rmsnorm,
  roundToBfloat16,
  sameBits,
  type Stored,
} from "../ffi/kernel_reference.ts";
import { AttentionCase, cacheTypeTolerance } from "../ffi/attention_case.ts";

const storageTypes: readonly StorageType[] = ["float32", "float16", "bfloat16"];
/** Ways to multiply: the storage type, and whether activations are rounded to bfloat16. */
const products = [
  ...storageTypes.map((type) => ({ type, rounds: false })),
  { type: "bfloat16" as const, rounds: true },
];
const blockSizes = [8, 16, 32];

/** A kernel set under test. */
export interface KernelsUnderTest {
  readonly name: string;
  /** Why it cannot be tested here; null if it can. */
  readonly unavailable: string | null;
  load(): Promise<CpuKernels>;
}

/** Registers the suite's tests; those of an unavailable set are reported as ignored. */
export function testKernels(subject: KernelsUnderTest): void {
  const test = (title: string, body: (kernels: CpuKernels, arrays: Arrays) => void) =>
    Deno.test({
      name: subject.unavailable === null
        ? `${subject.name} kernels: ${title}`
        : `${subject.name} kernels: ${title} (not here: ${subject.unavailable})`,
      ignore: subject.unavailable !== null,
      fn: async () => {
        const kernels = await subject.load();
        try {
          body(kernels, new Arrays(kernels));
        } finally {
          kernels.close();
        }
      },
    });

  test("memory is zeroed, aligned, and zeroed again when it is reused", (kernels) => {
    const sizes = [1, 64, 100, 5000, 3 << 20];
    for (let round = 0; round < 2; round++) {
      const addresses = sizes.map((size) => kernels.alloc(size));
      addresses.forEach((address, i) => {
        assert.equal(address % 64n, 0n);
        const bytes = kernels.bytes(address, sizes[i]);
        assert.ok(bytes.every((byte) => byte === 0), `${sizes[i]} bytes are zero`);
        bytes.fill(0xff);
      });
      [3, 0, 4, 1, 2].forEach((i) => kernels.free(addresses[i], sizes[i]));
    }
    assert.throws(() => kernels.free(64n, 64), /no allocation of 64 bytes at 64/);
  });

  test("copy copies", (kernels, arrays) => {
    const source = arrays.put(Uint8Array.of(1, 2, 3, 4)), target = kernels.alloc(8);
    kernels.copy(target, source, 3);
    assert.deepEqual([...kernels.bytes(target, 5)], [1, 2, 3, 0, 0]);
  });

  test("more memory than there is, is refused", (kernels) => {
    assert.throws(() => kernels.alloc(2 ** 50), /no memory for 1125899906842624 bytes: /);
  });

  test("gemm agrees with float64 at odd shapes, strides and piece sizes", (kernels, arrays) => {
    const random = new Random(1);
    const shapes = [[1, 2], [16, 32], [40, 70], [33, 578], [96, 256], [20, 1026]];
    for (const [n, k] of shapes) {
      for (const { type, rounds } of products) {
        const stored = asStored(type, normals(random, n * k));
        const weights = packed(kernels, stored, n, k);
        for (const m of [1, 2, 3, 8, 21]) {
          const error = gemmError(kernels, arrays, random, { weights, stored, m, rounds });
          assert.ok(error < 1e-6, `${type} rounds ${rounds} [${m}, ${n}, ${k}]: ${error}`);
        }
      }
    }
  });

  test("a gemm row is the same bits for 1 to 40 rows", (kernels, arrays) => {
    const random = new Random(2), n = 150, k = 290, most = 40;
    for (const { type, rounds } of products) {
      const weights = packed(kernels, asStored(type, normals(random, n * k)), n, k);
      const rows = normals(random, most * k);
      const x = arrays.put(rows), y = kernels.alloc(most * n * 4);
      kernels.gemm(x, k, weights, 0n, y, n, most, rounds);
      const all = arrays.integers(y, most * n);
      for (let m = 1; m < most; m++) {
        // The last m rows, so that a row's place in the batch changes as well.
        // What is read ahead must not matter either.
        const next = m % 2 === 0 ? weights : undefined;
        kernels.gemm(x + BigInt((most - m) * k * 4), k, weights, 0n, y, n, m, rounds, next);
        const same = sameBits(arrays.integers(y, m * n), all.slice((most - m) * n));
        assert.ok(same, `${type}, rounds ${rounds}, ${m} rows`);
      }
    }
  });

  test("pack refuses what it cannot pack", (kernels) => {
    const bytes = (count: number) => new Uint8Array(count);
    assert.throws(
      () => kernels.pack("float32", [bytes(12)], 1, 3),
      /k is 3, expected an even number/,
    );
    assert.throws(() => kernels.pack("float32", [bytes(8)], 2, 2), /has 16 bytes/);
    assert.throws(() => kernels.pack("float32", [bytes(12), bytes(4)], 2, 2), /whole rows/);
  });

  test("embed returns the table's rows exactly", (kernels, arrays) => {
    const random = new Random(3), vocab = 50, k = 70;
    const ids = Int32Array.of(49, 0, 16, 15, 15, 33);
    for (const type of storageTypes) {
      const table = asStored(type, normals(random, vocab * k));
      const y = kernels.alloc(ids.length * k * 4);
      kernels.embed(packed(kernels, table, vocab, k), arrays.put(ids), y, ids.length);
      const expected = [...ids].flatMap((id) => [...table.values.slice(id * k, (id + 1) * k)]);
      assert.deepEqual([...arrays.floats(y, ids.length * k)], expected);
    }
  });

  test("rmsnorm, addRmsnorm and headRmsnorm", (kernels, arrays) => {
    const random = new Random(4), eps = 1e-5;
    for (const [m, k] of [[1, 1], [3, 70], [37, 576]]) {
      const x = normals(random, m * k), residual = normals(random, m * k);
      const weight = normals(random, k), weightAt = arrays.put(weight);
      const xAt = arrays.put(x), residualAt = arrays.put(residual), y = kernels.alloc(m * k * 4);
      kernels.rmsnorm(xAt, weightAt, y, m, k, eps);
      assert.ok(relativeError(arrays.floats(y, m * k), rmsnorm(x, weight, k, eps)) < 1e-6);

      const sum = x.map((value, i) => value + residual[i]);
      kernels.addRmsnorm(xAt, residualAt, weightAt, y, m, k, eps);
      assert.deepEqual(arrays.floats(xAt, m * k), sum);
      assert.ok(relativeError(arrays.floats(y, m * k), rmsnorm(sum, weight, k, eps)) < 1e-6);
    }
    const [m, heads, headDim, ldx] = [5, 3, 24, 100];
    const x = normals(random, m * ldx), weight = normals(random, headDim), xAt = arrays.put(x);
    kernels.headRmsnorm(xAt, ldx, arrays.put(weight), m, heads, headDim, eps);
    const expected = Float64Array.from(x);
    for (let row = 0; row < m; row++) {
      const part = x.slice(row * ldx, row * ldx + heads * headDim);
      expected.set(rmsnorm(part, weight, headDim, eps), row * ldx);
    }
    assert.ok(relativeError(arrays.floats(xAt, m * ldx), expected) < 1e-6);
  });

  test("rope turns each half-split pair by its angle", (kernels, arrays) => {
    const random = new Random(5), positions = Int32Array.of(0, 7, 3, 7);
    for (const [heads, headDim] of [[1, 8], [5, 40], [3, 64]]) {
      const m = positions.length, ldx = heads * headDim + 6, half = headDim / 2;
      const x = normals(random, m * ldx), expected = Float64Array.from(x);
      const angles = normals(random, 8 * half);
      const table = Float32Array.from({ length: 8 * headDim }, (_, at) => {
        const angle = angles[Math.floor(at / headDim) * half + at % half];
        return at % headDim < half ? Math.cos(angle) : Math.sin(angle);
      });
      for (let at = 0; at < m * ldx; at++) {
        const row = Math.floor(at / ldx), column = at % ldx, i = column % headDim;
        if (column >= heads * headDim) continue;
        const turn = positions[row] * headDim + i % half;
        const [cosine, sine] = [table[turn], table[turn + half]];
        expected[at] = i < half
          ? x[at] * cosine - x[at + half] * sine
          : x[at] * cosine + x[at - half] * sine;
      }
      const xAt = arrays.put(x);
      kernels.rope(xAt, ldx, arrays.put(positions), arrays.put(table), m, heads, headDim);
      assert.ok(relativeError(arrays.floats(xAt, m * ldx), expected) < 1e-6);
    }
  });

  test("siluMul, also far from zero", (kernels, arrays) => {
    const random = new Random(6);
    for (const [m, f] of [[1, 1], [3, 37], [20, 1536]]) {
      const gateUp = normals(random, m * 2 * f, 3);
      gateUp[0] = -200;
      if (f > 1) gateUp[1] = 200;
      const y = kernels.alloc(m * f * 4);
      kernels.siluMul(arrays.put(gateUp), y, m, f);
      const expected = Float64Array.from({ length: m * f }, (_, at) => {
        const gate = gateUp[Math.floor(at / f) * 2 * f + at % f];
        return gate / (1 + Math.exp(-gate)) * gateUp[Math.floor(at / f) * 2 * f + f + at % f];
      });
      const actual = arrays.floats(y, m * f);
      assert.ok(Math.abs(actual[0]) < 1e-30, "silu(-200) vanishes");
      assert.ok(relativeError(actual.slice(1), expected.slice(1)) < 1e-6);
    }
  });

  test("argmax takes the lowest index on ties, and -1 where any is NaN", (kernels, arrays) => {
    const random = new Random(7), k = 1000;
    const x = normals(random, 5 * k);
    for (const tie of [999, 501, 17]) x[tie] = 50;
    x.fill(-1, k, 2 * k);
    x.fill(-Infinity, 2 * k, 3 * k);
    x.fill(NaN, 3 * k, 4 * k)[3 * k + 700] = -5;
    x[4 * k + k - 1] = Infinity;
    const out = kernels.alloc(20);
    kernels.argmax(arrays.put(x), k, out, 5, k);
    assert.deepEqual([...arrays.integers(out, 5)], [17, 0, 0, -1, k - 1]);
    for (const at of [0, 17, 640, k - 1]) {
      const row = x.slice(0, k);
      row[at] = NaN;
      kernels.argmax(arrays.put(row), k, out, 1, k);
      assert.deepEqual([...arrays.integers(out, 1)], [-1], `NaN at ${at}`);
    }
    kernels.argmax(arrays.put(Float32Array.of(1, 3, 2, 9, 9, 9)), 3, out, 2, 2);
    assert.deepEqual([...arrays.integers(out, 2)], [1, 0]);
  });

  test("kvWrite fills the slots it is given, in the pool's layout, and no others", (kernels) => {
    for (const type of storageTypes) {
      for (const blockSize of blockSizes) checkKvWrite(kernels, type, blockSize);
    }
  });

  test("readMemory reads", (kernels, arrays) => {
    assert.equal(kernels.readMemory(arrays.put(new Float32Array(1 << 16)), 1 << 18), 0);
  });

  test("attention agrees with float64 over types, block sizes and head dimensions", (kernels) => {
    const random = new Random(8);
    const shapes = [[2, 1, 8], [3, 3, 24], [6, 2, 40], [9, 3, 64], [7, 1, 128]];
    for (const type of storageTypes) {
      for (const [heads, kvHeads, headDim] of shapes) {
        for (const blockSize of blockSizes) {
          const layout = { type, heads, kvHeads, headDim, blockSize };
          // Whole prompts, a chunk of one, and decodes, mixed.
          const attention = new AttentionCase(kernels, random, layout, [
            { context: 11, queries: 11 },
            { context: 40, queries: 1 },
            { context: 33, queries: 3 },
            { context: 1, queries: 1 },
          ]);
          const error = attention.error(attention.run());
          assert.ok(error < cacheTypeTolerance, `${JSON.stringify(layout)}: ${error}`);
          attention.free();
        }
      }
    }
  });

  test("attention over long contexts, alone and in a batch", (kernels) => {
    const random = new Random(9);
    const many = Array.from({ length: 5 }, (_, i) => ({ context: 500 + 40 * i, queries: 1 }));
    const long = { context: 1300, queries: 1 };
    for (const sequences of [[long], [long, ...many], [{ context: 1040, queries: 20 }]]) {
      for (const blockSize of sequences.length === 1 ? blockSizes : [16]) {
        const layout = { type: "bfloat16" as const, heads: 6, kvHeads: 2, headDim: 16, blockSize };
        const attention = new AttentionCase(kernels, random, layout, sequences);
        const error = attention.error(attention.run());
        assert.ok(error < cacheTypeTolerance, `block size ${blockSize}: ${error}`);
        attention.free();
      }
    }
  });

  test("an attention row is the same bits in any batch, chunk and block size", (kernels) => {
    for (const type of storageTypes) {
      const shape = { type, heads: 3, kvHeads: 1, headDim: 24 };
      const sequences = [
        { context: 1061, queries: 9 },
        { context: 530, queries: 1 },
        { context: 40, queries: 40 },
        ...Array.from({ length: 12 }, (_, i) => ({ context: 9 + 3 * i, queries: 1 })),
      ];
      // The same numbers for every block size, from the same seed.
      const cases = blockSizes.map((blockSize) =>
        new AttentionCase(kernels, new Random(10), { ...shape, blockSize }, sequences)
      );
      const all = cases[1].run();
      for (const attention of cases) {
        const size = attention.layout.blockSize;
        assert.ok(sameBits(attention.run(), all), `block size ${size}`);
        sequences.forEach((_, i) => {
          const rows = attention.rowsOf(all, i);
          assert.ok(sameBits(attention.run([i]), rows), `sequence ${i} alone, blocks of ${size}`);
          for (const chunk of [1, 7]) {
            assert.ok(
              sameBits(attention.runInChunks(i, chunk), rows),
              `${i} in chunks of ${chunk}`,
            );
          }
        });
      }
    }
  });

  test("attention is free of NaN at extreme scores", (kernels) => {
    const layout = { type: "float32" as const, heads: 4, kvHeads: 2, headDim: 16, blockSize: 16 };
    for (const scale of [1e4, 1e18, 0]) {
      const attention = new AttentionCase(kernels, new Random(11), layout, [
        { context: 90, queries: 9 },
        { context: 1200, queries: 1 },
      ], scale);
      const out = attention.run();
      assert.ok(out.every(Number.isFinite), `scale ${scale}`);
      assert.ok(attention.error(out) < 1e-4, `scale ${scale}: ${attention.error(out)}`);
    }
  });

  test("shapes that the cache cannot have are refused", (kernels) => {
    const view = cacheView("float32", 1n, { kvHeads: 1, headDim: 12, blockSize: 16 });
    assert.throws(() => kernels.kvWrite(view, 0, 0n, 0n, 0, 0n, 0), /head dimension 12/);
    const odd = cacheView("float32", 1n, { kvHeads: 1, headDim: 16, blockSize: 7 });
    assert.throws(() => kernels.kvWrite(odd, 0, 0n, 0n, 0, 0n, 0), /block size 7/);
  });
}

function packed(kernels: CpuKernels, stored: Stored, n: number, k: number): PackedMatrix {
  // Pieces of an odd number of rows, at an odd address.
  const cut = Math.floor(n / 3) * (stored.bytes.length / n);
  const shifted = new Uint8Array(stored.bytes.length + 1);
  shifted.set(stored.bytes, 1);
  const pieces = [shifted.subarray(1, 1 + cut), shifted.subarray(1 + cut)];
  const matrix = kernels.pack(stored.type, pieces, n, k);
  assert.equal(matrix.byteLength, kernels.packedBytes(stored.type, n, k));
  return matrix;
}

interface GemmCase {
  readonly weights: PackedMatrix;
  /** What was packed. */
  readonly stored: Stored;
  readonly m: number;
  readonly rounds: boolean;
}

/** Relative error of a gemm whose rows have gaps, which must stay as they are. */
function gemmError(kernels: CpuKernels, arrays: Arrays, random: Random, gemm: GemmCase): number {
  const { weights, stored, m, rounds } = gemm, { n, k } = weights, ldx = k + 3, ldy = n + 5;
  const x = normals(random, m * ldx), bias = m % 2 === 0 ? normals(random, n) : null;
  const y = arrays.put(new Float32Array(m * ldy).fill(7));
  const biasAt = bias === null ? 0n : arrays.put(bias);
  kernels.gemm(arrays.put(x), ldx, weights, biasAt, y, ldy, m, rounds);

  const rows = Float64Array.from({ length: m * k }, (_, at) => {
    const value = x[Math.floor(at / k) * ldx + at % k];
    return rounds ? roundToBfloat16(value) : value;
  });
  const wide = arrays.floats(y, m * ldy);
  const gaps = wide.filter((_, at) => at % ldy >= n);
  assert.ok(gaps.every((value) => value === 7), "the gap between rows is untouched");
  const actual = wide.filter((_, at) => at % ldy < n);
  return relativeError(actual, matmul(rows, stored.values, bias, m, n, k));
}

function cacheView(
  type: StorageType,
  address: KernelAddress,
  shape: { kvHeads: number; headDim: number; blockSize: number; layers?: number },
): KvCacheView {
  const element = type === "float32" ? 4 : 2;
  const layerBytes = 2 * shape.kvHeads * shape.headDim * shape.blockSize * element;
  return {
    ...{ address, type, layerBytes, blockBytes: layerBytes * (shape.layers ?? 1) },
    ...{ numKvHeads: shape.kvHeads, headDim: shape.headDim, blockSize: shape.blockSize },
  };
}

function checkKvWrite(kernels: CpuKernels, type: StorageType, blockSize: number): void {
  const kvHeads = 2, headDim = 24, layers = 3, layer = 1, blocks = 4, ld = kvHeads * headDim + 9;
  const random = new Random(12), arrays = new Arrays(kernels);
  const slots = Int32Array.of(blockSize + 3, 2 * blockSize - 1, 0, 3 * blockSize);
  const keys = normals(random, slots.length * ld), values = normals(random, slots.length * ld);
  const probe = cacheView(type, 0n, { kvHeads, headDim, blockSize, layers });
  const view = { ...probe, address: kernels.alloc(blocks * probe.blockBytes) };
  const [keysAt, valuesAt, slotsAt] = [keys, values, slots].map((array) => arrays.put(array));
  kernels.kvWrite(view, layer, keysAt, valuesAt, ld, slotsAt, slots.length);

  const element = type === "float32" ? 4 : 2, headBytes = headDim * blockSize * element;
  const expected = new Uint8Array(blocks * view.blockBytes);
  const [storedKeys, storedValues] = [asStored(type, keys), asStored(type, values)];
  slots.forEach((slot, row) => {
    const block = Math.floor(slot / blockSize), offset = slot % blockSize;
    for (let head = 0; head < kvHeads; head++) {
      const start = block * view.blockBytes + layer * view.layerBytes + head * 2 * headBytes;
      for (let d = 0; d < headDim; d++) {
        const from = (row * ld + head * headDim + d) * element;
        const key = storedKeys.bytes.subarray(from, from + element);
        const value = storedValues.bytes.subarray(from, from + element);
        expected.set(key, start + (d * blockSize + offset) * element);
        expected.set(value, start + headBytes + (offset * headDim + d) * element);
      }
    }
  });
  assert.deepEqual(new Uint8Array(kernels.bytes(view.address, expected.length)), expected);
}
