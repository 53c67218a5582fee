import assert from "node:assert/strict";
import { AccountedKvPool } from "../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../src/kv/pool/array_kv_pool.ts";
import { HostKvPool } from "../../../src/kv/pool/host_kv_pool.ts";
import { blockBytes, layerBytes } from "../../../src/kv/layout.ts";
import type { KvPool } from "../../../src/kv/pool/pool.ts";
import { suiteLayout as layout } from "../../conformance/migration_backend.ts";

const NUM_BLOCKS = 7;
const bytes = blockBytes(layout);
const memory = Uint8Array.from({ length: NUM_BLOCKS * bytes }, (_, i) => i * 13 >> 2);
const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));

const pools: Record<string, KvPool> = {
  "array": new ArrayKvPool(layout, NUM_BLOCKS, memory),
  "host": new HostKvPool(address, layout, NUM_BLOCKS),
  "host in segments": new HostKvPool(address, layout, NUM_BLOCKS, 3 * bytes),
};

for (const [name, pool] of Object.entries(pools)) {
  Deno.test(`KvPool ${name}: runs are views of the layers of a block`, () => {
    const layer = layerBytes(layout);
    for (let block = 0; block < NUM_BLOCKS; block++) {
      for (let first = 0; first <= layout.numLayers; first++) {
        for (let count = 0; first + count <= layout.numLayers; count++) {
          const start = block * bytes + first * layer;
          const run = pool.run(block, first, count);
          assert.deepEqual([...run], [...memory.subarray(start, start + count * layer)]);
        }
      }
    }
    const before = memory[2 * bytes + layer];
    pool.run(2, 1, 1)[0] ^= 255;
    assert.equal(memory[2 * bytes + layer], before ^ 255);
  });
}

Deno.test("KvPool: blocks and layers that are not there are errors", () => {
  for (const pool of [...Object.values(pools), new AccountedKvPool(layout, NUM_BLOCKS)]) {
    for (const run of [[-1, 0, 1], [NUM_BLOCKS, 0, 1], [0, -1, 1], [0, 2, 3], [NaN, 0, 1]]) {
      assert.throws(() => pool.run(run[0], run[1], run[2]), RangeError);
    }
  }
  assert.throws(() => new ArrayKvPool(layout, 3, new Uint8Array(1)), RangeError);
});
