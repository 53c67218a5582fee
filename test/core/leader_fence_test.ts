import assert from "node:assert/strict";
import { LeaderFence, SupersededError } from "../../src/core/leader_fence.ts";

const a4 = { epoch: 4, leader: "a" },
  b5 = { epoch: 5, leader: "b" },
  c5 = { epoch: 5, leader: "c" };

Deno.test("leader fence: without a cluster every decision counts", () => {
  const fence = new LeaderFence("instance-0");
  fence.check({});
  fence.check({});
  assert.equal(fence.known, null);
});

Deno.test("leader fence: a decision of an older epoch, of another leader of the same, or without one is refused", () => {
  const fence = new LeaderFence("instance-0");
  fence.check({ leadership: a4 });
  fence.check({ leadership: b5 });
  for (const leadership of [a4, c5, undefined]) {
    assert.throws(
      () => fence.check({ leadership }),
      (error) => error instanceof SupersededError && error.known === b5,
    );
  }
  assert.throws(() => fence.check({ leadership: a4 }), {
    message: "instance-0 refuses a decision of a (epoch 4): b (epoch 5) leads",
  });
  fence.check({ leadership: b5 });
  fence.check({ leadership: { epoch: 6, leader: "a" } });
});

Deno.test("leader fence: what the store shows counts before the new leader has decided anything", () => {
  const fence = new LeaderFence("instance-0");
  fence.check({ leadership: a4 });
  fence.learn(b5);
  fence.learn(a4);
  fence.learn(c5); // the first of an epoch counts
  assert.throws(() => fence.check({ leadership: a4 }), SupersededError);
  fence.check({ leadership: b5 });
});
