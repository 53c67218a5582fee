import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { blockBytes } from "../../../src/kv/layout.ts";
import { PoolCursor } from "../../../src/kv/transfer/pool_cursor.ts";
import { suiteLayout } from "../../conformance/migration_backend.ts";

const pool = { address: 0x7f00_1234_5000n, layout: suiteLayout };
const blocks = [4, 5, 6, 1, 9, 10, 2];
const limits = { bufferBlocks: 5, numLayers: 4 };

Deno.test("pool cursor: pieces of any size and what calls take of them are all bytes in order", () => {
  const random = new Random(5);
  const all = addresses(new PoolCursor(pool, blocks, limits).places());
  assert.equal(all.length, blocks.length * blockBytes(suiteLayout));
  const cursor = new PoolCursor(pool, blocks, limits);
  const taken: bigint[] = [];
  while (cursor.remainingBytes > 0) {
    const wanted = 1 + random.below(3 * blockBytes(suiteLayout));
    const piece = addresses(cursor.placesOf(wanted));
    assert.equal(piece.length, Math.min(wanted, cursor.remainingBytes));
    const written = 1 + random.below(piece.length);
    taken.push(...piece.slice(0, written));
    cursor.advance(written);
  }
  assert.deepEqual(taken, all);
});

Deno.test("pool cursor: taking a piece changes nothing", () => {
  const cursor = new PoolCursor(pool, blocks, limits);
  const before = cursor.places().slice();
  cursor.placesOf(blockBytes(suiteLayout) + 7);
  assert.deepEqual(cursor.places(), before);
});

/** The address of every byte. */
function addresses(places: BigUint64Array): bigint[] {
  const found: bigint[] = [];
  for (let i = 0; i < places.length; i += 2) {
    for (let byte = 0n; byte < places[i + 1]; byte++) found.push(places[i] + byte);
  }
  return found;
}
