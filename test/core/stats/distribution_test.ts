import assert from "node:assert/strict";
import { distributionOf, quantile } from "../../../src/core/stats/distribution.ts";

Deno.test("quantiles are interpolated between the values", () => {
  assert.equal(quantile([10, 20], 0.5), 15);
  assert.equal(quantile([1, 2, 3, 4, 5], 0.25), 2);
  assert.equal(quantile([7], 0.99), 7);
  assert.equal(quantile([], 0.5), 0);
});

Deno.test("a distribution does not depend on the order of the values", () => {
  const values = Array.from({ length: 101 }, (_, i) => (i * 37) % 101);
  const { count, mean, p50, p99, max, quantiles } = distributionOf(values);
  assert.deepEqual({ count, mean, p50, p99, max }, {
    count: 101,
    mean: 50,
    p50: 50,
    p99: 99,
    max: 100,
  });
  assert.equal(quantiles.length, 201);
  assert.equal(quantiles[0], 0);
  assert.equal(quantiles[1], 0.5);
  assert.equal(quantiles[200], 100);
});

Deno.test("of nothing, all figures are 0", () => {
  const { count, mean, p50, p99, max } = distributionOf([]);
  assert.deepEqual([count, mean, p50, p99, max], [0, 0, 0, 0, 0]);
});
