import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { BlockAllocator } from "../../../src/instance/engine/block_allocator.ts";

Deno.test("BlockAllocator: hands out every block once, then refuses", () => {
  const pool = new BlockAllocator("device", 3);
  assert.deepEqual([pool.allocate(), pool.allocate(), pool.allocate()], [0, 1, 2]);
  assert.equal(pool.freeBlocks, 0);
  assert.throws(() => pool.allocate(), /device pool: all 3 blocks are taken/);
});

Deno.test("BlockAllocator: a block is free only after its last reference", () => {
  const pool = new BlockAllocator("device", 2);
  const block = pool.allocate();
  pool.retain(block);
  pool.release(block);
  assert.equal(pool.usedBlocks, 1);
  pool.release(block);
  assert.equal(pool.usedBlocks, 0);
  assert.throws(() => pool.release(block), /block 0 is released but not in use/);
  assert.throws(() => pool.retain(block), /block 0 is retained but not in use/);
  assert.throws(() => pool.release(7), /block 7 is released but not in use/);
});

Deno.test("BlockAllocator: what it hands out next is known before", () => {
  const pool = new BlockAllocator("device", 4);
  assert.deepEqual(pool.upcoming(2), [0, 1]);
  const block = pool.allocate();
  pool.allocate();
  pool.release(block);
  assert.deepEqual(pool.upcoming(9), [0, 2, 3]);
  assert.deepEqual([pool.allocate(), pool.allocate(), pool.allocate()], [0, 2, 3]);
  assert.deepEqual(pool.upcoming(1), []);
});

Deno.test("BlockAllocator: random use agrees with a map of references", () => {
  const random = new Random(1);
  const pool = new BlockAllocator("swap", 20);
  const references = new Map<number, number>();
  for (let i = 0; i < 5000; i++) {
    const used = [...references.keys()];
    const dice = random.below(3);
    if (dice === 0 && pool.freeBlocks > 0) {
      const block = pool.allocate();
      assert.ok(!references.has(block), `block ${block} was in use`);
      references.set(block, 1);
    } else if (dice === 1 && used.length > 0) {
      const block = used[random.below(used.length)];
      pool.retain(block);
      references.set(block, references.get(block)! + 1);
    } else if (used.length > 0) {
      const block = used[random.below(used.length)];
      pool.release(block);
      references.set(block, references.get(block)! - 1);
      if (references.get(block) === 0) references.delete(block);
    }
    assert.equal(pool.usedBlocks, references.size);
    pool.check();
  }
});
