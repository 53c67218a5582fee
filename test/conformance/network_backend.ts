/**
 * What every implementation of `MigrationBackend` between processes must do when the network fails:
 * give up in time, write nothing after a revocation, and work again as soon as the network does.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { UnavailableError } from "../../src/core/errors.ts";
import { blockBytes, type KvLayout } from "../../src/kv/layout.ts";
import { ENDLESS_MS, PATIENCE_MS, pause, until, watch, within } from "../patience.ts";
import type { LossyLink } from "./lossy_link.ts";
import type { BackendEnd, BackendPair } from "./migration_backend.ts";
import { contents, fill } from "./kv_pool.ts";

/** Larger than what sockets buffer. */
export const networkLayout: KvLayout = {
  format: "k-transposed",
  dtype: "float32",
  numLayers: 4,
  numKvHeads: 8,
  headDim: 64,
  blockSize: 16,
};
export const NETWORK_BLOCKS = 20;
const TOTAL_BYTES = NETWORK_BLOCKS * blockBytes(networkLayout);
/** What comes before the first block. */
const HEAD_BYTES = 100;

export interface LossyPair extends BackendPair {
  /** What the source's blocks go through. */
  readonly link: LossyLink;
}

export interface NetworkBackendUnderTest {
  readonly name: string;
  /** With pools of {@linkcode NETWORK_BLOCKS} blocks of {@linkcode networkLayout}. */
  open(): Promise<LossyPair>;
  /** Registers only the tests with such titles: for another kind of pool of a backend that passes all. */
  readonly only?: RegExp;
  /** Why the tests cannot run here. */
  readonly skipped?: string;
}

export function testNetworkBackend(subject: NetworkBackendUnderTest): void {
  const { name, only, skipped } = subject;
  const test = (title: string, body: (pair: LossyPair) => Promise<void>) => {
    if (only?.test(title) === false) return;
    const reason = skipped === undefined ? "" : ` (skipped: ${skipped})`;
    Deno.test({
      name: `${name} backend on a network: ${title}${reason}`,
      ignore: skipped !== undefined,
      fn: async () => {
        const pair = await subject.open();
        try {
          await fill(pair.source.pool, 1);
          await fill(pair.destination.pool, 2);
          await body(pair);
        } finally {
          await pair.close();
        }
      },
    });
  };

  const amounts = {
    "no byte": 0,
    "10 bytes": 10,
    "the head": HEAD_BYTES + 1,
    "half of the bytes": TOTAL_BYTES / 2,
    "all bytes but one": TOTAL_BYTES - 1,
  };
  for (const [amount, afterBytes] of Object.entries(amounts)) {
    test(`the connection breaks after ${amount}`, async (pair) => {
      pair.link.set({ then: "cut", afterBytes });
      await assert.rejects(within(sendAll(pair, ENDLESS_MS), "it gives up"), UnavailableError);
      await works(pair);
    });

    test(`the other end hangs after ${amount}`, async (pair) => {
      pair.link.set({ then: "hang", afterBytes });
      const startMs = performance.now();
      await assert.rejects(sendAll(pair, 300), UnavailableError);
      const tookMs = performance.now() - startMs;
      assert.ok(tookMs >= 250, `gave up after ${tookMs} ms`);
      await works(pair);
    });
  }

  test("a link that is slow, and fast enough", async (pair) => {
    pair.link.set({ bytesPerMs: TOTAL_BYTES / 200 });
    await sendAll(pair, PATIENCE_MS);
    await assertMoved(pair);
  });

  test("a link that is too slow: what trickles in after the revocation is not written", async (pair) => {
    pair.link.set({ bytesPerMs: TOTAL_BYTES / 1_500 });
    await assert.rejects(sendAll(pair, 300), UnavailableError);
    await pair.destination.backend.revoke("m");
    const after = await contents(pair.destination.pool);
    await pause(300);
    assertSame(await contents(pair.destination.pool), after);
    await works(pair);
  });

  for (const side of ["near", "far"] as const) {
    test(`half open: the ${side} side is gone, and the other does not know`, async (pair) => {
      await sendAll(pair, PATIENCE_MS);
      pair.link.halfClose(side);
      // A busy machine may let the first deadline pass before it finds out.
      for (const leftMs of [600, 6_000]) {
        await sendAll(pair, leftMs).catch((error) => assert.ok(error instanceof UnavailableError));
      }
      await works(pair);
    });

    test(`half open in the middle: the ${side} side is gone`, async (pair) => {
      const isMidway = () => pair.link.passedBytes >= TOTAL_BYTES / 4;
      // A busy machine may let the first deadlines pass before it gets there.
      for (const leftMs of [600, 6_000, PATIENCE_MS]) {
        pair.link.set({ bytesPerMs: TOTAL_BYTES / 1_000 });
        const sending = sendAll(pair, leftMs);
        const state = watch(sending);
        await until(() => isMidway() || state.isSettled, "a quarter has passed");
        const isInTime = !state.isSettled;
        if (isInTime) pair.link.halfClose(side);
        await assert.rejects(sending, UnavailableError);
        if (isInTime) return await works(pair);
        await pair.destination.backend.revoke("m");
      }
      assert.fail("a quarter of the bytes never passed before the deadline");
    });
  }

  test("an abort in the middle of a slow transfer", async (pair) => {
    pair.link.set({ bytesPerMs: TOTAL_BYTES / 2_000 });
    const controller = new AbortController();
    const sending = sendAll(pair, ENDLESS_MS, { signal: controller.signal });
    sending.catch(() => {});
    await until(() => pair.link.passedBytes >= TOTAL_BYTES / 10, "a tenth has passed");
    controller.abort();
    await assert.rejects(within(sending, "the abort settles it"), /was aborted/);
    await works(pair);
  });

  test("in the background all gets there as well, and in time", async (pair) => {
    await sendAll(pair, PATIENCE_MS, { isBackground: true });
    await assertMoved(pair);
    await works(pair);
    await fill(pair.source.pool, 9);
    // A busy machine may need longer than the first of these.
    await sendAll(pair, 1_000, { isBackground: true })
      .catch(() => sendAll(pair, 5_000, { isBackground: true }))
      .catch(() => sendAll(pair, PATIENCE_MS, { isBackground: true }));
    await assertMoved(pair);
  });

  test("the other end hangs, or an abort comes, in the middle of a background transfer", async (pair) => {
    pair.link.set({ then: "hang", afterBytes: TOTAL_BYTES / 2 });
    await assert.rejects(sendAll(pair, 300, { isBackground: true }), UnavailableError);
    await works(pair);
    const controller = new AbortController();
    const passedBytes = pair.link.passedBytes + TOTAL_BYTES / 2;
    const { signal } = controller;
    const sending = sendAll(pair, ENDLESS_MS, { signal, isBackground: true });
    sending.catch(() => {});
    await until(() => pair.link.passedBytes >= passedBytes, "half has passed", 1);
    controller.abort();
    await assert.rejects(sending, /was aborted/);
    await works(pair);
  });

  test("the destination is closed in the middle of a transfer", async (pair) => {
    pair.link.set({ bytesPerMs: TOTAL_BYTES / 2_000 });
    const sending = sendAll(pair, ENDLESS_MS);
    sending.catch(() => {});
    await until(() => pair.link.passedBytes >= TOTAL_BYTES / 10, "a tenth has passed");
    await pair.destination.backend.close();
    await assert.rejects(within(sending, "the transfer ends"), UnavailableError);
  });
}

const blocks = Array.from({ length: NETWORK_BLOCKS }, (_, block) => block);

/** Moves all blocks, each to the place of its mirror image. */
async function sendAll(
  pair: LossyPair,
  timeoutMs: number,
  { signal = new AbortController().signal, isBackground = false, migrationId = "m" } = {},
): Promise<void> {
  const { source, destination } = pair;
  await destination.backend.grant(migrationId, blocks);
  await source.backend.send({
    migrationId,
    destination: {
      instanceId: pair.instanceIdOf?.(destination) ?? "destination",
      address: pair.addressOf?.(destination) ?? "",
    },
    endpoint: destination.backend.endpoint,
    sourceBlocks: blocks,
    destinationBlocks: blocks.toReversed(),
    deadlineMs: pair.nowMs() + timeoutMs,
    isBackground,
  }, signal);
}

async function assertMoved(
  { source, destination }: Record<"source" | "destination", BackendEnd>,
): Promise<void> {
  assertSame(await contents(destination.pool), (await contents(source.pool)).reverse());
}

/** `assert.deepEqual` takes seconds for as many bytes. */
function assertSame(actual: readonly Uint8Array[], expected: readonly Uint8Array[]): void {
  assert.equal(actual.length, expected.length);
  for (const [block, bytes] of actual.entries()) {
    assert.ok(Buffer.compare(bytes, expected[block]) === 0, `block ${block} differs`);
  }
}

let numWorking = 0;

/**
 * The network is well again, and so is the backend: another migration moves all blocks. It has an id of its own, as
 * every migration has. A message of the one before may still be on its way, and is refused.
 */
async function works(pair: LossyPair): Promise<void> {
  const migrationId = `works ${numWorking++}`;
  pair.link.set({});
  await within(pair.destination.backend.revoke("m"), "the revocation");
  await fill(pair.source.pool, 7);
  await fill(pair.destination.pool, 8);
  await sendAll(pair, PATIENCE_MS, { migrationId });
  await assertMoved(pair);
  await within(pair.destination.backend.revoke(migrationId), "the revocation");
}
