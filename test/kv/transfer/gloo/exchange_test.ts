import assert from "node:assert/strict";
import { populate } from "../../../../ffi/libc.ts";
import { type Interest, openSockets, type Sockets } from "../../../../ffi/sockets.ts";
import { blockBytes, type KvLayout } from "../../../../src/kv/layout.ts";
import { GlooExchange } from "../../../../src/kv/transfer/gloo/exchange.ts";
import { PoolPrefault } from "../../../../src/kv/transfer/pool_prefault.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { PATIENCE_MS } from "../../../patience.ts";

/** Blocks of 3.25 MiB. */
const layout: KvLayout = {
  ...suiteLayout,
  numLayers: 13,
  numKvHeads: 8,
  headDim: 128,
  blockSize: 32,
};
const NUM_BLOCKS = 40;
const MIB = 1 << 20;
const canPopulate = populate(addressOf(new Uint8Array(MIB)), MIB);

Deno.test({
  name: "exchange: blocks are made ready a few megabytes a turn",
  ignore: !canPopulate,
}, () => {
  const memory = new Uint8Array(NUM_BLOCKS * blockBytes(layout));
  const sockets = openSockets()!;
  const { readEnd, writeEnd } = sockets.pipe();
  sockets.write(writeEnd, new Uint8Array(1)); // no turn waits
  const exchange = new GlooExchange(sockets, {
    identity: { instanceId: "a", model: "m", layout },
    pool: { address: addressOf(memory), layout },
    numBlocks: NUM_BLOCKS,
    host: "127.0.0.1",
    isSealed: false,
    initTimeoutMs: PATIENCE_MS,
  }, (error) => assert.fail(`${error}`));
  const half = Array.from({ length: NUM_BLOCKS / 2 }, (_, i) => NUM_BLOCKS - 1 - 2 * i);
  const startBytes = Deno.memoryUsage().rss;
  const grown = () => (Deno.memoryUsage().rss - startBytes) / MIB;
  exchange.prepare(half);
  assert.ok(grown() < 16, `${grown()} MiB at once`);
  let numTurns = 0;
  for (; grown() < 58; numTurns++) {
    const before = grown();
    assert.ok(numTurns < 200, `${grown()} MiB after ${numTurns} turns`);
    exchange.turn(readEnd);
    assert.ok(grown() - before < 8, `${grown() - before} MiB in a turn`);
  }
  exchange.close();
  for (const fd of [readEnd, writeEnd]) sockets.close(fd);
  assert.equal(memory.at(-1), 0, "it was there all the time");
});

Deno.test({
  name: "exchange: while the process has no file descriptor left, it waits, and then accepts",
  ignore: Deno.build.os !== "linux",
}, () => {
  const sockets = openSockets()!;
  const { readEnd, writeEnd } = sockets.pipe();
  let isFull = true, listener = -1, numAccepted = 0;
  let polled: { readonly fds: readonly number[]; readonly timeoutMs: number };
  const full: Sockets = Object.create(sockets, {
    ...bound(sockets, ["listen", "close", "read", "write", "error"]),
    accept: {
      value(fd: number): number {
        listener = fd;
        if (isFull) return -1; // as for want of a descriptor: the connection goes on waiting
        const accepted = sockets.accept(fd);
        if (accepted >= 0) numAccepted++;
        return accepted;
      },
    },
    poll: {
      value(interests: readonly Interest[], timeoutMs: number): Int16Array {
        polled = { fds: interests.map(({ fd }) => fd), timeoutMs };
        return sockets.poll(interests, timeoutMs);
      },
    },
  });
  const exchange = new GlooExchange(full, {
    identity: { instanceId: "a", model: "m", layout },
    pool: { address: null, layout },
    numBlocks: NUM_BLOCKS,
    host: "127.0.0.1",
    isSealed: false,
    initTimeoutMs: PATIENCE_MS,
  }, (error) => assert.fail(`${error}`));
  const client = sockets.connect("127.0.0.1", exchange.port);
  // On a busy machine a pause may be over before the next turn begins.
  for (let numTurns = 0;; numTurns++) {
    assert.ok(numTurns < 200, "every turn tries to accept, and none waits");
    exchange.turn(readEnd);
    const { fds, timeoutMs } = polled!;
    const isWait = timeoutMs > 0 && timeoutMs < PATIENCE_MS;
    if (listener >= 0 && !fds.includes(listener) && isWait) break;
  }
  isFull = false;
  while (numAccepted === 0) exchange.turn(readEnd);
  exchange.close();
  for (const fd of [client, readEnd, writeEnd]) sockets.close(fd);
});

Deno.test("pool prefault: a block waits once, and none where there is no memory", () => {
  const memory = new Uint8Array(4 * blockBytes(suiteLayout));
  const prefault = new PoolPrefault({ address: addressOf(memory), layout: suiteLayout }, 4);
  for (const blocks of [[1, 0, 1], [3, 1]]) {
    prefault.add(blocks);
    assert.equal(prefault.isDone, false);
    for (let i = 0; i < 2 * blocks.length; i++) prefault.step(); // a block may lie in two pages
    assert.equal(prefault.isDone, true);
  }
  prefault.add([0, 1, 3]);
  assert.equal(prefault.isDone, true);
  const nowhere = new PoolPrefault({ address: null, layout: suiteLayout }, 4);
  nowhere.add([0, 1]);
  assert.equal(nowhere.isDone, true);
});

function addressOf(memory: Uint8Array<ArrayBuffer>): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
}

/** Methods with private fields need their own object. */
function bound(sockets: Sockets, names: readonly (keyof Sockets)[]): PropertyDescriptorMap {
  return Object.fromEntries(
    names.map((name) => [name, { value: sockets[name].bind(sockets) }]),
  );
}
