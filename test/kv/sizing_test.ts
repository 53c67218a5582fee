import assert from "node:assert/strict";
import { blockBytes, type KvLayout, layerBytes, layoutDifference } from "../../src/kv/layout.ts";
import { type KvBudget, planKvCache } from "../../src/kv/sizing.ts";

/** Blocks of 1 MiB. */
const layout: KvLayout = {
  format: "k-transposed",
  dtype: "bfloat16",
  numLayers: 16,
  numKvHeads: 8,
  headDim: 128,
  blockSize: 16,
};
const gib = 2 ** 30;
const budget: KvBudget = {
  layout,
  availableBytes: 10 * gib,
  addressableBytes: Infinity,
  weightBytes: gib,
  memoryUtilization: 0.5,
  hostShare: 1,
  numBlocksOverride: null,
  swapSpaceGiB: 2,
  usesSwap: false,
  maxNumSeqs: 256,
  maxModelLen: 4096,
};
const plan = (changes: Partial<KvBudget>) => planKvCache({ ...budget, ...changes });

Deno.test("layout: sizes, and the first difference of two", () => {
  assert.equal(layerBytes(layout), 64 * 1024);
  assert.equal(blockBytes(layout), 2 ** 20);
  assert.equal(layoutDifference(layout, { ...layout }), null);
  assert.equal(
    layoutDifference(layout, { ...layout, dtype: "float32" }),
    "dtype is bfloat16 here and float32 there",
  );
});

Deno.test("sizing: the cache gets the fraction of memory that the weights leave", () => {
  assert.deepEqual(plan({}), { numBlocks: 4096, numSwapBlocks: 2048 });
  assert.equal(plan({ hostShare: 2 }).numBlocks, 1536);
  assert.equal(plan({ swapSpaceGiB: 0 }).numSwapBlocks, 0);
});

Deno.test("sizing: a swap pool that is used takes from the cache, for it is in the same memory", () => {
  assert.deepEqual(plan({ usesSwap: true }), { numBlocks: 2048, numSwapBlocks: 2048 });
  assert.throws(() => plan({ usesSwap: true, swapSpaceGiB: 4 }), /swap space: 4 GiB each/);
});

Deno.test("sizing: never more than all sequences at full length could use", () => {
  const { numBlocks, numSwapBlocks } = plan({ maxNumSeqs: 2 });
  assert.ok(numBlocks > 2 * 256 && numBlocks < 2 * 256 * 1.05, `${numBlocks}`);
  assert.equal(numSwapBlocks, numBlocks);
});

Deno.test("sizing: a short address space is divided", () => {
  const { numBlocks, numSwapBlocks } = plan({ addressableBytes: 3 * gib });
  assert.deepEqual([numBlocks, numSwapBlocks], [1024, 1024]);
});

Deno.test("sizing: the override holds, within reason", () => {
  assert.equal(plan({ numBlocksOverride: 300 }).numBlocks, 300);
  assert.throws(() => plan({ numBlocksOverride: 255 }), {
    name: "UsageError",
    message: "The KV cache holds 4080 tokens (255 blocks of 16), fewer than one sequence of " +
      "--max-model-len 4096. Raise --num-gpu-blocks-override or lower --max-model-len.",
  });
});

Deno.test("sizing: too little memory is refused with what to lower", () => {
  assert.throws(() => plan({ weightBytes: 5 * gib, maxModelLen: 8192 }), {
    name: "UsageError",
    message: "The KV cache holds 0 tokens (0 blocks of 16), fewer than one sequence of " +
      "--max-model-len 8192. Free memory: 10.00 GiB for 1 instance(s), weights: 5.00 GiB each, " +
      "KV cache of one such sequence: 0.50 GiB. Lower --max-model-len or the number of " +
      "instances, or raise --gpu-memory-utilization.",
  });
});

Deno.test("sizing: small sizes are told in MiB, a single block as such", () => {
  assert.throws(() => plan({ availableBytes: 3 * 2 ** 20, weightBytes: 2 ** 19 }), {
    message: /\(1 block of 16\).* Free memory: 3\.00 MiB for 1 .*, weights: 0\.50 MiB each/,
  });
});
