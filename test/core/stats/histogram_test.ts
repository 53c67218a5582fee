import assert from "node:assert/strict";
import { distributionOf } from "../../../src/core/stats/distribution.ts";
import { Histogram } from "../../../src/core/stats/histogram.ts";
import { Random } from "../../../src/core/random.ts";

Deno.test("quantiles of a histogram are within its precision, over eight decades", () => {
  const random = new Random(1);
  const values = Array.from({ length: 20_000 }, () => 0.01 * 10 ** (8 * random.uniform()));
  const histogram = new Histogram();
  for (const value of values) histogram.add(value);
  const found = histogram.distribution(), exact = distributionOf(values);
  assert.equal(found.count, exact.count);
  assert.equal(found.max, exact.max);
  assert.ok(Math.abs(found.mean / exact.mean - 1) < 1e-9);
  for (const name of ["p50", "p99"] as const) {
    assert.ok(Math.abs(found[name] / exact[name] - 1) < 0.006, `${name} ${found[name]}`);
  }
});

Deno.test("values too small to tell apart are counted", () => {
  const histogram = new Histogram();
  for (const value of [0, 0, 1e-9, 50]) histogram.add(value);
  const { count, p50, max } = histogram.distribution();
  assert.deepEqual([count, p50, max], [4, 0, 50]);
});

Deno.test("an empty histogram has figures of 0", () => {
  const { count, mean, p99 } = new Histogram().distribution();
  assert.deepEqual([count, mean, p99], [0, 0, 0]);
});
