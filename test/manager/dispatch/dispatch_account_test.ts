import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { DispatchAccount } from "../../../src/manager/dispatch/dispatch_account.ts";

const EXPIRY_MS = 100;
const ids = ["a", "b", "c"];

Deno.test("account: what is sent counts until a report of that instance has it", () => {
  const account = new DispatchAccount(EXPIRY_MS);
  account.dispatched("a", "r1", 2.5, 0);
  account.dispatched("a", "r2", 1, 0);
  assert.deepEqual(account.pendingOf("a"), { requests: 2, highPriorityRequests: 0, blocks: 3.5 });
  account.reported("b", ["r1"]);
  account.reported("a", ["r2", "unknown"]);
  assert.deepEqual(account.pendingOf("a"), { requests: 1, highPriorityRequests: 0, blocks: 2.5 });
  account.reported("a", ["r1"]);
  assert.deepEqual(account.pendingOf("a"), { requests: 0, highPriorityRequests: 0, blocks: 0 });
});

Deno.test("account: a request that is dispatched again moves", () => {
  const account = new DispatchAccount(EXPIRY_MS);
  assert.equal(account.dispatched("a", "r", 2, 0), null);
  assert.equal(account.dispatched("b", "r", 2, 50), "a");
  assert.equal(account.pendingOf("a").requests, 0);
  assert.deepEqual(account.expire(100), [], "it is young again");
  assert.deepEqual(account.expire(150), ["b"]);
});

Deno.test("account: has all that was sent and not reported, is exactly zero in the end", () => {
  for (let seed = 0; seed < 60; seed++) {
    const random = new Random(seed);
    const account = new DispatchAccount(EXPIRY_MS);
    /** Sent to an instance and not reported by it, with the time: what the account must have. */
    const underWay = new Map<string, { at: string; blocks: number; sentMs: number }>();
    let nowMs = 0;
    for (let i = 0; i < 400; i++) {
      nowMs += random.below(5);
      const at = ids[random.below(3)];
      const kind = random.below(10);
      if (kind < 5) {
        const requestId = `r${random.below(200)}`;
        const blocks = (1 + random.below(100)) / 10; // sums of these drift
        account.dispatched(at, requestId, blocks, nowMs);
        underWay.delete(requestId);
        underWay.set(requestId, { at, blocks, sentMs: nowMs });
      } else if (kind < 8) {
        const sent = [...underWay].filter(([, request]) => request.at === at);
        const received = sent.filter(() => random.below(2) === 0).map(([requestId]) => requestId);
        account.reported(at, received); // the rest was lost, or is late
        for (const requestId of received) underWay.delete(requestId);
      } else if (kind < 9) {
        account.expire(nowMs);
        for (const [requestId, { sentMs }] of underWay) {
          if (nowMs - sentMs >= EXPIRY_MS) underWay.delete(requestId);
        }
      } else if (random.below(5) === 0) {
        account.forget(at);
        for (const [requestId, request] of underWay) {
          if (request.at === at) underWay.delete(requestId);
        }
      }
      for (const id of ids) {
        const mine = [...underWay.values()].filter((request) => request.at === id);
        const { requests, blocks } = account.pendingOf(id);
        assert.equal(requests, mine.length, `seed ${seed}`);
        const expected = mine.reduce((sum, request) => sum + request.blocks, 0);
        assert.ok(Math.abs(blocks - expected) < 1e-9, `seed ${seed}`);
      }
      assert.equal(account.numPending, underWay.size);
    }
    account.expire(nowMs + EXPIRY_MS);
    assert.equal(account.numPending, 0);
    for (const id of ids) {
      assert.deepEqual(account.pendingOf(id), { requests: 0, highPriorityRequests: 0, blocks: 0 });
    }
  }
});
