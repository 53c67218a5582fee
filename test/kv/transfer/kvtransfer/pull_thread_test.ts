import assert from "node:assert/strict";
import { blockBytes } from "../../../../src/kv/layout.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import type { PullOrder } from "../../../../src/kv/transfer/kvtransfer/block_puller.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { PullThread } from "../../../../src/kv/transfer/kvtransfer/pull_thread.ts";
import { networkLayout } from "../../../conformance/network_backend.ts";
import { PATIENCE_MS, within } from "../../../patience.ts";

/** More than the caller's thread copies. */
const NUM_BLOCKS = 4;

/** A thread that a pull keeps until it is stopped: meanwhile it reads no message. */
function startBusy(): Worker {
  const script = `
    self.onmessage = ({ data: { id, type, order } }) => {
      if (type !== "pull") return self.postMessage({ id, result: null });
      const endMs = performance.now() + ${PATIENCE_MS / 2};
      while (Atomics.load(order.stopWord, 0) === 0 && performance.now() < endMs);
      const isStopped = Atomics.load(order.stopWord, 0) === 1;
      self.postMessage({ id, failure: isStopped ? "stopped" : "nobody stopped it" });
    };
    self.postMessage("ready");
  `;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  return new Worker(url, { type: "module" });
}

async function setUp() {
  const from = new ArrayKvPool(networkLayout, NUM_BLOCKS);
  const into = new ArrayKvPool(networkLayout, NUM_BLOCKS);
  from.bytes.fill(7);
  const { address, layout, numBlocks } = into;
  const thread = await PullThread.start({ address, layout, numBlocks }, null, startBusy);
  const order = (blocks: readonly number[], migrationId = "m"): PullOrder => ({
    ...{ migrationId, generation: "g" },
    source: { process: thisProcess(), address: from.address, ucx: null },
    ...{ sourceBlocks: blocks, destinationBlocks: blocks },
    ...{ timeoutMs: PATIENCE_MS, isBackground: false },
  });
  return { into, thread, order };
}

const all = Array.from({ length: NUM_BLOCKS }, (_, block) => block);

Deno.test("pull thread: a stop reaches a thread that reads no messages", async () => {
  const { thread, order } = await setUp();
  const pulling = assert.rejects(thread.pull(order(all)), /^UnavailableError: stopped$/);
  await within(thread.stop("m"), "the stop");
  await pulling;
  await thread.close();
});

Deno.test("pull thread: so does a close", async () => {
  const { thread, order } = await setUp();
  const pulling = assert.rejects(thread.pull(order(all)), /^UnavailableError: stopped$/);
  await within(thread.close(), "the close");
  await pulling;
});

Deno.test("pull thread: the caller's thread copies a few blocks, until the thread has ended", async () => {
  const { into, thread, order } = await setUp();
  await within(thread.pull(order([1])), "one block");
  const bytes = blockBytes(networkLayout);
  assert.deepEqual([0, 1, 2].map((block) => into.bytes[block * bytes]), [0, 7, 0]);
  assert.ok(into.bytes.subarray(bytes, 2 * bytes).every((byte) => byte === 7));
  await thread.close();
  await assert.rejects(thread.pull(order([2])), /the migration backend is closed/);
  assert.equal(into.bytes[2 * bytes], 0);
});
