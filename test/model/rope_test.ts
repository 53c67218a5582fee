import assert from "node:assert/strict";
import { ropeFrequencies, ropeTable } from "../../src/model/rope.ts";

const plain = ropeFrequencies({ theta: 10000, scaling: null }, 64);

Deno.test("rope: frequencies fall from 1 to about 1 / theta", () => {
  assert.equal(plain.length, 32);
  assert.equal(plain[0], 1);
  assert.ok(Math.abs(plain[16] - 0.01) < 1e-9);
});

Deno.test("rope: linear scaling divides positions", () => {
  const scaled = ropeFrequencies({ theta: 10000, scaling: { type: "linear", factor: 4 } }, 64);
  scaled.forEach((frequency, i) => assert.equal(frequency, plain[i] / 4));
});

Deno.test("rope: llama3 scaling keeps short wavelengths and stretches long ones", () => {
  const scaling = {
    type: "llama3",
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 8192,
  } as const;
  const scaled = ropeFrequencies({ theta: 500000, scaling }, 128);
  const base = ropeFrequencies({ theta: 500000, scaling: null }, 128);
  const ratio = Array.from(scaled, (frequency, i) => frequency / base[i]);
  assert.equal(ratio[0], 1);
  assert.equal(ratio[63], 1 / 8);
  const between = ratio.filter((r) => r < 1 && r > 1 / 8);
  assert.ok(between.length > 3, "a band in between is smoothed");
  ratio.slice(1).forEach((r, i) => assert.ok(r <= ratio[i]));
});

Deno.test("rope: a row of the table is the cosines, then the sines", () => {
  const table = ropeTable({ theta: 10000, scaling: null }, 8, 5);
  assert.deepEqual(Array.from(table.subarray(0, 8)), [1, 1, 1, 1, 0, 0, 0, 0]);
  const frequencies = ropeFrequencies({ theta: 10000, scaling: null }, 8);
  assert.equal(table[4 * 8 + 2], Math.fround(Math.cos(Math.fround(4 * frequencies[2]))));
  assert.equal(table[4 * 8 + 4 + 2], Math.fround(Math.sin(Math.fround(4 * frequencies[2]))));
});
