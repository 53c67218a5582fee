/** Transfers through two staging buffers, which a loop in place of the sockets fills and empties. */
import assert from "node:assert/strict";
import { bytesAt } from "../../../../ffi/memory.ts";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { Random } from "../../../../src/core/random.ts";
import { layerBytes } from "../../../../src/kv/layout.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { PoolCursor, type TransferCursor } from "../../../../src/kv/transfer/pool_cursor.ts";
import { Staging } from "../../../../src/kv/transfer/gloo/staging.ts";
import { contents, fill } from "../../../conformance/kv_pool.ts";
import { SUITE_BLOCKS, suiteLayout } from "../../../conformance/migration_backend.ts";
import { ExampleDevicePool } from "../../pool/example_device_pool.ts";

const newPool = () => new ExampleDevicePool(suiteLayout, SUITE_BLOCKS);
const turn = () => new Promise((resolve) => setTimeout(resolve));
const from = [3, 4, 5, 9, 0, 20, 21, 2, 23], to = [7, 0, 1, 2, 3, 11, 12, 23, 22];
const limits = { bufferBlocks: 4, numLayers: 3 };

/** Moves random numbers of bytes from places to places, as two sockets would. */
async function pump(source: TransferCursor, destination: TransferCursor, random: Random) {
  let numMoves = 0;
  while (!destination.isSettled) {
    if (source.remainingBytes > 0 && source.isReady && destination.isReady) {
      const [out, into] = [source, destination].map((one) => one.placesOf(1 + random.below(3000)));
      const bytes = Math.min(Number(out[1]), Number(into[1]));
      bytesAt(into[0], bytes).set(bytesAt(out[0], bytes));
      source.advance(bytes);
      destination.advance(bytes);
      numMoves++;
    } else await turn();
  }
  source.release();
  destination.release();
  return numMoves;
}

for (const layers of [1, 3, 5, 1000]) {
  Deno.test(`staging: blocks get to their places through buffers of ${layers} layers`, async () => {
    const [a, b] = [newPool(), newPool()];
    const bufferBytes = layers * layerBytes(suiteLayout) + 5; // not a whole number
    const [source, destination] = [new Staging(a, bufferBytes), new Staging(b, bufferBytes)];
    const random = new Random(layers);
    for (let i = 0; i < 3; i++) {
      await fill(a, i);
      await fill(b, 10 + i);
      const expected = await contents(b), sent = await contents(a);
      from.forEach((block, k) => expected[to[k]] = sent[block]);
      const moves = await pump(
        source.source("m", from, limits),
        destination.destination("m", to, limits),
        random,
      );
      assert.ok(moves > 3);
      assert.deepEqual(await contents(b), expected);
      assert.deepEqual([source.isCopying, destination.isCopying], [false, false]);
    }
  });
}

Deno.test("staging: the bytes travel in the order that pools of the host have", async () => {
  const host = new ArrayKvPool(suiteLayout, SUITE_BLOCKS), device = newPool();
  await fill(host, 4);
  const staging = new Staging(device, 3 * layerBytes(suiteLayout));
  const cursor = new PoolCursor({ address: host.address, layout: suiteLayout }, from, limits);
  await pump(cursor, staging.destination("m", to, limits), new Random(1));
  const [sent, received] = [await contents(host), await contents(device)];
  from.forEach((block, k) => assert.deepEqual(received[to[k]], sent[block]));
});

Deno.test("staging: buffers are used again only when nothing copies them any more", async () => {
  const pool = newPool();
  const staging = new Staging(pool, layerBytes(suiteLayout));
  let numBuffers = 0;
  const allocate = pool.allocateStaging.bind(pool);
  pool.allocateStaging = (bytes) => {
    numBuffers++;
    return allocate(bytes);
  };
  const first = staging.source("m", from, limits);
  first.release(); // its first reads are under way
  assert.ok(staging.isCopying);
  const second = staging.source("n", from, limits);
  assert.equal(numBuffers, 4);
  second.release();
  assert.notEqual(staging.idle("m"), null);
  await staging.idle();
  assert.deepEqual([staging.isCopying, staging.idle("m")], [false, null]);
  staging.source("o", from, limits).release();
  await staging.idle();
  assert.equal(numBuffers, 4);
});

Deno.test("staging: a device that fails ends the transfer with its reason", async () => {
  const pool = newPool();
  const staging = new Staging(pool, layerBytes(suiteLayout));
  const cursor = staging.source("m", from, limits);
  await staging.idle();
  pool.read = () => Promise.reject(new UnavailableError("the KV pool's device failed: error 700"));
  cursor.advance(Number(cursor.places()[1]));
  await staging.idle();
  await turn();
  assert.ok(cursor.isReady, "the connection is told at once");
  assert.throws(() => cursor.places(), { name: "UnavailableError", message: /error 700/ });
  cursor.release();
  assert.equal(staging.isCopying, false);
});
