/** The pool of a CUDA device, over the software device. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { blockBytes } from "../../../../src/kv/layout.ts";
import {
  contents,
  fill,
  POOL_BLOCKS,
  poolLayout as layout,
  testKvPool,
} from "../../../conformance/kv_pool.ts";
import { configure, counts, reset } from "../../../ffi/software_device/device.ts";
import { missing, SoftwareCudaPool } from "./software_cuda_pool.ts";

if (missing === null) {
  testKvPool({ name: "CUDA", open: () => new SoftwareCudaPool(layout, POOL_BLOCKS) });
  // Copies go through the bounce buffers in many parts, which end in the middle of a run.
  testKvPool({
    name: "CUDA, small bounce buffers",
    open: () => new SoftwareCudaPool(layout, POOL_BLOCKS, 1000),
  });
  testKvPool({
    name: "CUDA, on two devices",
    open: () => new SoftwareCudaPool({ ...layout, shards: 2 }, POOL_BLOCKS, 1000),
  });
} else {
  Deno.test({ name: `KvPool CUDA (skipped: ${missing})`, ignore: true, fn() {} });
}

function cudaTest(name: string, run: (pool: SoftwareCudaPool) => Promise<void>): void {
  Deno.test({
    name: `KvPool CUDA: ${name}${missing === null ? "" : ` (skipped: ${missing})`}`,
    ignore: missing !== null,
    fn: async () => {
      const pool = new SoftwareCudaPool(layout, POOL_BLOCKS, 1000);
      try {
        await run(pool);
      } finally {
        await pool.close();
      }
    },
  });
}

const all = Array.from({ length: POOL_BLOCKS }, (_, block) => ({
  ...{ block, firstLayer: 0, numLayers: layout.numLayers },
}));
const allBytes = POOL_BLOCKS * blockBytes(layout);

cudaTest("pinned buffers need no bounce buffer, and parts of them neither", async (pool) => {
  await fill(pool, 1);
  const before = counts().pinned;
  const staging = pool.allocateStaging(2 * allBytes);
  assert.equal(counts().pinned, before + 1);
  const half = staging.subarray(allBytes);
  await pool.read(all, half);
  const plain = new Uint8Array(allBytes);
  await pool.read(all, plain);
  assert.deepEqual(half, plain);
  half.reverse();
  await pool.write(all, half);
  await pool.read(all, plain);
  assert.deepEqual(plain, half);
});

cudaTest("closed, it leaves nothing on the device or the host", async (pool) => {
  await pool.close(); // it opened the device's context
  const before = counts();
  const second = new SoftwareCudaPool(layout, POOL_BLOCKS, 1000);
  await fill(second, 1);
  second.allocateStaging(100);
  const copying = contents(second);
  await copying;
  await second.close();
  assert.deepEqual(counts(), before);
  assert.throws(() => second.allocateStaging(1), UnavailableError);
});

cudaTest("a device that fails is unavailable, and so is what comes after", async (pool) => {
  await fill(pool, 1);
  configure("fail-work=2");
  await assert.rejects(pool.read(all, new Uint8Array(allBytes)), UnavailableError);
  await assert.rejects(pool.read(all, new Uint8Array(allBytes)), UnavailableError);
  await pool.close();
  reset();
});

Deno.test({
  name: `KvPool CUDA: a copy that hangs ends reads, and no write before the pool is closed${
    missing === null ? "" : ` (skipped: ${missing})`
  }`,
  ignore: missing !== null,
  fn: async () => {
    for (const buffer of ["bounced", "pinned"]) {
      const pool = new SoftwareCudaPool(layout, POOL_BLOCKS, 1000, 200);
      const bytes = buffer === "pinned" ? pool.allocateStaging(allBytes) : new Uint8Array(allBytes);
      configure("hang-work=1");
      let hasEnded = false;
      const writing = pool.write(all, bytes).finally(() => hasEnded = true);
      writing.catch(() => {});
      const hangs = /has not ended in 200 ms/;
      await assert.rejects(pool.read(all, bytes), hangs, "a read behind it");
      await assert.rejects(pool.read(all, new Uint8Array(allBytes)), hangs, "a later read");
      assert.equal(hasEnded, false, `${buffer}: the device may still write`);
      assert.match(await pool.failed, hangs);
      await pool.close();
      await assert.rejects(writing, UnavailableError);
      reset();

      const other = new SoftwareCudaPool(layout, POOL_BLOCKS, 1000, 200);
      const into = buffer === "pinned" ? other.allocateStaging(allBytes) : new Uint8Array(allBytes);
      configure("hang-work=1");
      await assert.rejects(other.read(all, into), /has not ended in 200 ms/);
      await other.close();
      reset();
    }
  },
});
