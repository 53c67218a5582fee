import assert from "node:assert/strict";
import { BucketCounts } from "../../../src/core/stats/bucket_counts.ts";

Deno.test("bucket counts: a value counts in the first bucket whose bound it does not exceed", () => {
  const counts = new BucketCounts([1, 2, 5]);
  for (const value of [-1, 1, 1.5, 2, 5, 5.1, 100]) counts.add(value);
  assert.deepEqual(counts.snapshot(), { bounds: [1, 2, 5], counts: [2, 2, 1, 2], sum: 113.6 });
});

Deno.test("bucket counts: what is no number is ignored", () => {
  const counts = new BucketCounts([1]);
  for (const value of [NaN, Infinity, -Infinity]) counts.add(value);
  assert.deepEqual(counts.snapshot(), { bounds: [1], counts: [0, 0], sum: 0 });
});

Deno.test("bucket counts: a snapshot does not change", () => {
  const counts = new BucketCounts([1]);
  const before = counts.snapshot();
  counts.add(0);
  assert.deepEqual(before.counts, [0, 0]);
});
