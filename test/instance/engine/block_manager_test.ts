import assert from "node:assert/strict";
import { BlockManager } from "../../../src/instance/engine/block_manager.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { generateRequest } from "../support.ts";

function manager(deviceBlocks: number, swapBlocks = 0): BlockManager {
  return new BlockManager({ blockSize: 4, deviceBlocks, swapBlocks });
}

function sequenceOf(promptTokens: number): Sequence {
  return new Sequence(generateRequest("r", promptTokens), 0);
}

Deno.test("BlockManager: the watermark is 1% of the blocks, rounded down", () => {
  assert.equal(manager(99).watermarkBlocks, 0);
  assert.equal(manager(200).watermarkBlocks, 2);
  assert.equal(manager(851).watermarkBlocks, 8);
});

Deno.test("BlockManager: a prompt is admitted, later or never, by blocks and watermark", () => {
  const blocks = manager(200);
  assert.equal(blocks.canAllocate(sequenceOf(4 * 198)), "yes");
  assert.equal(blocks.canAllocate(sequenceOf(4 * 198 + 1)), "never");
  blocks.allocate(sequenceOf(4 * 100));
  assert.equal(blocks.canAllocate(sequenceOf(4 * 98)), "yes");
  assert.equal(blocks.canAllocate(sequenceOf(4 * 98 + 1)), "later");
});

Deno.test("BlockManager: a sequence that has run may use the watermark, with the pool to itself", () => {
  const blocks = manager(200);
  const grown = sequenceOf(4 * 200 - 1);
  grown.append(1);
  assert.equal(blocks.canAllocate(grown), "yes");
  const other = sequenceOf(1);
  blocks.allocate(other);
  assert.equal(blocks.canAllocate(grown), "later");
  grown.append(2);
  assert.equal(blocks.canAllocate(grown), "never");
});

Deno.test("BlockManager: a token needs a block only where the last one is full", () => {
  const blocks = manager(2);
  const sequence = sequenceOf(7);
  blocks.allocate(sequence);
  assert.equal(sequence.blocks.length, 2);
  sequence.append(1);
  assert.ok(blocks.canAppend(sequence), "the last slot");
  blocks.append(sequence);
  sequence.append(1);
  assert.ok(!blocks.canAppend(sequence), "no third block");
  blocks.free(sequence);
  assert.equal(blocks.freeBlocks, 2);
  blocks.check([sequence]);
});

Deno.test("BlockManager: swapping returns the copies and moves the table", () => {
  const blocks = manager(4, 3);
  const sequence = sequenceOf(8);
  blocks.allocate(sequence);
  const before = [...sequence.blocks];
  const out: number[] = [];
  assert.ok(blocks.canSwapOut(sequence));
  blocks.swapOut(sequence, out);
  sequence.status = "swapped";
  blocks.check([sequence]);
  assert.deepEqual(out, [before[0], sequence.blocks[0], before[1], sequence.blocks[1]]);
  assert.equal(blocks.freeBlocks, 4);
  assert.equal(blocks.freeSwapBlocks, 1);

  sequence.append(1);
  const parked = [...sequence.blocks];
  const back: number[] = [];
  blocks.swapIn(sequence, back);
  sequence.status = "running";
  blocks.check([sequence]);
  assert.equal(sequence.blocks.length, 3, "room for the new token");
  assert.deepEqual(back, [parked[0], sequence.blocks[0], parked[1], sequence.blocks[1]]);
  assert.equal(blocks.freeSwapBlocks, 3);
});

Deno.test("BlockManager: swap space that is too small is not used", () => {
  const blocks = manager(4, 1);
  const sequence = sequenceOf(8);
  blocks.allocate(sequence);
  assert.ok(!blocks.canSwapOut(sequence));
});

Deno.test("BlockManager: blocks that a transfer reads outlive their sequence", () => {
  const blocks = manager(4);
  const sequence = sequenceOf(8);
  blocks.allocate(sequence);
  const moving = [...sequence.blocks];
  blocks.retain(moving);
  blocks.check([sequence]);
  blocks.free(sequence);
  assert.equal(blocks.freeBlocks, 2);
  blocks.check([]);
  const next = sequenceOf(8);
  blocks.allocate(next);
  assert.ok(next.blocks.every((block) => !moving.includes(block)));
  blocks.release(moving);
  assert.equal(blocks.freeBlocks, 2);
  blocks.check([next]);
});

Deno.test("BlockManager: check finds a shared, a lost and a freed block", () => {
  const shared = manager(4);
  const a = sequenceOf(4), b = sequenceOf(4);
  shared.allocate(a);
  shared.allocate(b);
  b.blocks[0] = a.blocks[0];
  assert.throws(() => shared.check([a, b]), /device block 0 is in two tables/);
  assert.throws(() => shared.check([a]), /block 1 has 1 references, but is used by 0 tables/);
  b.blocks[0] = 3;
  assert.throws(() => shared.check([a, b]), /block 1 has 1 references, but is used by 0/);
});

Deno.test("BlockManager: what transfers read has to be pinned, what they write reserved", () => {
  const blocks = manager(4);
  const sequence = sequenceOf(4);
  blocks.allocate(sequence);
  const [read] = sequence.blocks, [written] = blocks.reserve(1);
  const check = () => blocks.check([sequence], { read: [read], written: [written] });
  assert.throws(check, /device block 0 is read but not pinned/);
  blocks.retain([read]);
  check();
  blocks.cancelReservation([written]);
  assert.throws(check, /device block 1 is written but not reserved/);
});
