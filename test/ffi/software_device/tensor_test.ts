/** Products, transposed matrices, named barriers and programmatic launches of the emulator, by their values. */
import assert from "node:assert/strict";
import { configure, deviceTest } from "./device.ts";
import { microLibrary, runMicro } from "./micro.ts";

/** `count` values of the input of micro.cu's kernels, which counts from 1, from `start` on. */
function inputs(start: number, count: number, modulus: number, shift: number): number[] {
  return Array.from({ length: count }, (_, i) => (start + i + 1) % modulus - shift);
}

/** The sum of both turns of the kernel `product`: [16][8]. */
function expectedProduct(): number[] {
  const sums = new Array(16 * 8).fill(0);
  for (let turn = 0; turn < 2; turn++) {
    const left = inputs(turn * 256, 256, 7, 3), right = inputs(turn * 128, 128, 5, 2);
    for (let row = 0; row < 16; row++) {
      for (let column = 0; column < 8; column++) {
        for (let k = 0; k < 16; k++) {
          sums[row * 8 + column] += left[row * 16 + k] * right[k * 8 + column];
        }
      }
    }
  }
  return sums;
}

/** Lane i holds elements 2i and 2i + 1 of the matrix [8][8] of 0, 1, 2, ...; gets two of column i / 4. */
function expectedTransposed(): number[] {
  return Array.from({ length: 32 }, (_, lane) => {
    const column = Math.floor(lane / 4), row = lane % 4 * 2;
    return (row * 8 + column) | ((row + 1) * 8 + column) << 16;
  });
}

deviceTest(
  "mma, ldmatrix and movmatrix compute what PTX says, at every seed",
  "",
  async (bench) => {
    const path = await microLibrary(false);
    const expected = [...expectedProduct(), ...expectedProduct(), ...expectedTransposed()];
    for (let seed = 1; seed <= 4; seed++) {
      configure(`kernels=${path},seed=${seed}`);
      assert.deepEqual([...runMicro(bench, "product", 0)!.subarray(0, expected.length)], expected);
    }
  },
);

deviceTest("a matrix instruction without one of its lanes ends the kernel", "", async (bench) => {
  configure(`kernels=${await microLibrary(false)}`);
  assert.equal(runMicro(bench, "product", 23), null);
});

deviceTest("named barriers hand slots from warp to warp", "", async (bench) => {
  const path = await microLibrary(false);
  const expected = Array.from({ length: 32 }, (_, lane) => {
    const column = Array.from({ length: 6 }, (_, i) => i * 32 + (lane ^ 1) + 1);
    return column.reduce((sum, value) => sum + value);
  });
  for (let seed = 1; seed <= 4; seed++) {
    configure(`kernels=${path},seed=${seed}`);
    assert.deepEqual([...runMicro(bench, "relay", 0)!.subarray(0, 32)], expected);
  }
});

deviceTest("a chain of programmatic launches runs in order", "", async (bench) => {
  configure(`kernels=${await microLibrary(false)}`);
  const sums = runMicro(bench, "chain", 0)!.subarray(0, 64);
  assert.deepEqual([...sums], Array.from({ length: 64 }, (_, i) => 2 * (i + 1)));
});
