import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { type ArrivalSpec, gapsOf } from "../../src/workload/arrivals.ts";

/** Mean and coefficient of variation of many gaps. */
function statistics(spec: ArrivalSpec, seed: number): { meanMs: number; cv: number } {
  const nextGapMs = gapsOf(spec);
  const random = new Random(seed);
  const count = 200_000;
  let sum = 0, squares = 0;
  for (let i = 0; i < count; i++) {
    const gap = nextGapMs(random);
    assert.ok(gap >= 0 && Number.isFinite(gap));
    sum += gap;
    squares += gap * gap;
  }
  const meanMs = sum / count;
  return { meanMs, cv: Math.sqrt(squares / count - meanMs * meanMs) / meanMs };
}

function isNear(actual: number, expected: number, relative: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= relative * expected, `${what}: ${actual}`);
}

Deno.test("Poisson arrivals have their rate and exponential gaps", () => {
  const { meanMs, cv } = statistics({ kind: "poisson", rate: 40 }, 1);
  isNear(meanMs, 25, 0.01, "mean");
  isNear(cv, 1, 0.02, "cv");
});

for (const cv of [0.5, 1, 2, 4, 8]) {
  Deno.test(`Gamma arrivals have their rate and coefficient of variation ${cv}`, () => {
    const found = statistics({ kind: "gamma", rate: 10, cv }, 2);
    isNear(found.meanMs, 100, 0.01 * Math.max(1, cv), "mean");
    isNear(found.cv, cv, 0.05, "cv");
  });
}

Deno.test("uniform arrivals are equally far apart, a burst comes at once", () => {
  const random = new Random(3);
  const uniform = gapsOf({ kind: "uniform", rate: 4 }), burst = gapsOf({ kind: "burst" });
  for (let i = 0; i < 10; i++) {
    assert.equal(uniform(random), 250);
    assert.equal(burst(random), 0);
  }
});

Deno.test("impossible arrivals are refused", () => {
  for (const rate of [0, -1, NaN, Infinity]) {
    assert.throws(() => gapsOf({ kind: "poisson", rate }), {
      name: "UsageError",
      message: `the rate of arrivals is ${rate}: expected a number greater than 0`,
    });
  }
  assert.throws(() => gapsOf({ kind: "gamma", rate: 1, cv: 0 }), { name: "UsageError" });
});
