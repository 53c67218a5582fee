import assert from "node:assert/strict";
import { philox4x32, Random, uniformAt } from "../../src/core/random.ts";

/** Known answers of philox4x32-10 from Random123's kat_vectors. */
const knownAnswers = [
  { counter: [0, 0, 0, 0], key: [0, 0], result: "6627e8d5 e169c58d bc57ac4c 9b00dbd8" },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    result: "408f276d 41c83b0e a20bc7c6 6d5451fd",
  },
  {
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    key: [0xa4093822, 0x299f31d0],
    result: "d16cfe09 94fdcceb 5001e420 24126ea1",
  },
] as const;

Deno.test("Philox4x32-10 gives the known answers", () => {
  for (const { counter, key, result } of knownAnswers) {
    const words = philox4x32(counter, key).map((word) => word.toString(16).padStart(8, "0"));
    assert.equal(words.join(" "), result);
  }
});

Deno.test("Philox agrees with its definition in 64-bit arithmetic", () => {
  const random = new Random(1);
  for (let round = 0; round < 500; round++) {
    const counter = [0, 0, 0, 0].map(() => random.uint32()) as [number, number, number, number];
    const key = [random.uint32(), random.uint32()] as [number, number];
    let [c0, c1, c2, c3] = counter.map(BigInt);
    let [k0, k1] = key.map(BigInt);
    for (let i = 0; i < 10; i++) {
      const p0 = 0xd2511f53n * c0, p1 = 0xcd9e8d57n * c2;
      [c0, c1, c2, c3] = [
        (p1 >> 32n) ^ c1 ^ k0,
        p1 & 0xffffffffn,
        (p0 >> 32n) ^ c3 ^ k1,
        p0 & 0xffffffffn,
      ];
      k0 = (k0 + 0x9e3779b9n) & 0xffffffffn;
      k1 = (k1 + 0xbb67ae85n) & 0xffffffffn;
    }
    assert.deepEqual(philox4x32(counter, key), [c0, c1, c2, c3].map(Number));
  }
});

Deno.test("uniformAt is a pure function of seed and position, in [0, 1)", () => {
  const seen = new Set<number>();
  const seeds = [0, 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];
  for (const seed of seeds) {
    for (let position = 0; position < 200; position++) {
      const u = uniformAt(seed, position);
      assert.ok(u >= 0 && u < 1);
      assert.equal(uniformAt(seed, position), u);
      seen.add(u);
    }
  }
  assert.equal(seen.size, seeds.length * 200, "all bits of seed and position count");
});

Deno.test("a stream repeats with its seed and differs with another", () => {
  const take = (seed: number) => {
    const random = new Random(seed);
    return Array.from({ length: 50 }, () => random.uint32());
  };
  assert.deepEqual(take(3), take(3));
  assert.notDeepEqual(take(3), take(4));
  assert.notDeepEqual(take(3), take(3 + 2 ** 32));
});

Deno.test("streams have the moments of their distributions", () => {
  const random = new Random(9);
  const count = 40_000;
  const moments = (draw: () => number) => {
    let sum = 0, squares = 0;
    for (let i = 0; i < count; i++) {
      const x = draw();
      sum += x;
      squares += x * x;
    }
    const mean = sum / count;
    return { mean, variance: squares / count - mean * mean };
  };
  const near = (actual: number, expected: number) =>
    assert.ok(Math.abs(actual - expected) < 0.03, `${actual} is not near ${expected}`);
  const expected = [
    [() => random.uniform(), 1 / 2, 1 / 12],
    [() => random.normal(), 0, 1],
    [() => random.exponential(), 1, 1],
    [() => random.below(2), 1 / 2, 1 / 4],
  ] as const;
  for (const [draw, mean, variance] of expected) {
    const actual = moments(draw);
    near(actual.mean, mean);
    near(actual.variance, variance);
  }
});

Deno.test("below reaches every integer under its bound and no other", () => {
  const random = new Random(2);
  const seen = new Set(Array.from({ length: 500 }, () => random.below(7)));
  assert.deepEqual([...seen].sort(), [0, 1, 2, 3, 4, 5, 6]);
});
