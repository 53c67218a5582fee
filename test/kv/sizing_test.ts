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
  unclaimedBytes: Infinity,
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

/** What {@linkcode planKvCache} leaves to each process, in blocks of 1 MiB. */
const PROCESS_BLOCKS = 128;

Deno.test("sizing: the cache gets the fraction of memory that weights and process leave", () => {
  assert.deepEqual(plan({}), { numBlocks: 4096 - PROCESS_BLOCKS, numSwapBlocks: 0 });
  assert.equal(plan({ hostShare: 2 }).numBlocks, 1536 - PROCESS_BLOCKS);
});

Deno.test("sizing: everything of all instances together fits the memory", () => {
  for (const hostShare of [1, 2, 3, 8]) {
    for (const usesSwap of [false, true]) {
      for (const memoryUtilization of [0.6, 0.9, 1]) {
        const weightBytes = 100 * 2 ** 20, swapSpaceGiB = 0.25;
        const changes = { hostShare, usesSwap, memoryUtilization, weightBytes, swapSpaceGiB };
        const { numBlocks, numSwapBlocks } = plan(changes);
        const each = weightBytes + (numBlocks + numSwapBlocks + PROCESS_BLOCKS) * 2 ** 20;
        assert.ok(each * hostShare <= memoryUtilization * budget.availableBytes);
        assert.equal(numSwapBlocks, usesSwap ? 256 : 0);
      }
    }
  }
});

Deno.test("sizing: a swap pool that is used takes from the cache, for it is in the same memory", () => {
  const expected = { numBlocks: 2048 - PROCESS_BLOCKS, numSwapBlocks: 2048 };
  assert.deepEqual(plan({ usesSwap: true }), expected);
  assert.equal(plan({ usesSwap: true, swapSpaceGiB: 0 }).numSwapBlocks, 0);
  assert.throws(() => plan({ usesSwap: true, swapSpaceGiB: 4 }), /swap space: 4 GiB each/);
});

Deno.test("sizing: never more than all sequences at full length could use", () => {
  const { numBlocks, numSwapBlocks } = plan({ maxNumSeqs: 2, usesSwap: true });
  assert.ok(numBlocks > 2 * 256 && numBlocks < 2 * 256 * 1.05, `${numBlocks}`);
  assert.equal(numSwapBlocks, numBlocks);
});

Deno.test("sizing: a short address space is divided", () => {
  const { numBlocks, numSwapBlocks } = plan({ addressableBytes: 3 * gib, usesSwap: true });
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

Deno.test("sizing: an override that does not fit the memory is refused with one that does", () => {
  assert.equal(plan({ numBlocksOverride: 9216 - PROCESS_BLOCKS }).numBlocks, 9088);
  assert.throws(() => plan({ numBlocksOverride: 9089 }), {
    name: "UsageError",
    message: "A KV cache of 9089 blocks (8.88 GiB) does not fit. Free memory: 10.00 GiB for 1 " +
      "instance(s); each takes 1.00 GiB of weights and 0.13 GiB for its process. Lower " +
      "--num-gpu-blocks-override to 9088 or less.",
  });
  assert.throws(
    () => plan({ numBlocksOverride: 9088, usesSwap: true }),
    /a swap pool of 2\.00 GiB .* to 7040 or less, or --swap-space\./,
  );
});

Deno.test("sizing: what other instances have claimed is theirs", () => {
  const free = plan({ maxNumSeqs: 1e6 }).numBlocks;
  assert.equal(free, 4096 - PROCESS_BLOCKS);
  // 0.5 of the remaining 4 GiB, less 1 GiB of weights.
  const beside = { unclaimedBytes: 4 * gib, maxNumSeqs: 1e6, maxModelLen: 512 };
  assert.equal(plan(beside).numBlocks, 1024 - PROCESS_BLOCKS);
  // An instance that shares the host by --host-share gets its share, although the other has claimed its.
  assert.equal(
    plan({ ...beside, hostShare: 2, unclaimedBytes: 7.5 * gib }).numBlocks,
    1536 - PROCESS_BLOCKS,
  );
  assert.throws(() => plan({ ...beside, numBlocksOverride: 3073 - PROCESS_BLOCKS }), {
    message:
      /Free memory: 10\.00 GiB for 1 instance\(s\), of which other instances have claimed 6\.00 GiB; /,
  });
});

Deno.test("sizing: too little memory is refused with what to lower", () => {
  assert.throws(() => plan({ weightBytes: 5 * gib, maxModelLen: 8192 }), {
    name: "UsageError",
    message: "The KV cache holds 0 tokens (0 blocks of 16), fewer than one sequence of " +
      "--max-model-len 8192. Free memory: 10.00 GiB for 1 instance(s), weights: 5.00 GiB each, " +
      "KV cache of one such sequence: 0.50 GiB, process: 0.13 GiB each. Lower --max-model-len or the number of " +
      "instances, or raise --gpu-memory-utilization.",
  });
});

Deno.test("sizing: small sizes are told in MiB, a single block as such", () => {
  const availableBytes = 259 * 2 ** 20;
  assert.throws(() => plan({ availableBytes, weightBytes: 2 ** 19 }), {
    message: /\(1 block of 16\).* Free memory: 0\.25 GiB for 1 .*, weights: 0\.50 MiB each/,
  });
});
