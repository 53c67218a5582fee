import assert from "node:assert/strict";
import { PullThread } from "../../../../src/kv/transfer/kvtransfer/pull_thread.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { within } from "../../../patience.ts";

/** A thread that can be opened, and dies of the next request. */
function startFragile(): Worker {
  const script = `
    self.onmessage = ({ data: { id, type } }) => {
      if (type !== "open") throw new Error("broken");
      self.postMessage({ id, result: null });
    };
    self.postMessage("ready");
  `;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  return new Worker(url, { type: "module" });
}

Deno.test("pull thread: after its death a revocation waits for the reads that it began", async () => {
  const pool = { address: 1n << 30n, layout: suiteLayout, numBlocks: 4 };
  const thread = await PullThread.start(pool, null, startFragile);
  const startMs = performance.now();
  thread.prepare([1]);
  const failure = await within(thread.died, "the thread dies");
  assert.match(failure, /^the pull thread died: .*broken/);
  assert.equal(thread.failure, failure);
  await within(thread.stop("m"), "the revocation ends");
  assert.ok(performance.now() - startMs >= 900, "a read may be under way");
  await thread.close();
});
