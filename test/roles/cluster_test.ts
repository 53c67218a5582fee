import assert from "node:assert/strict";
import { audienceOf } from "../../src/roles/cluster.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

Deno.test("a manager counts the instances that it has heard within one and a half of --cluster-lease, whatever that is", async () => {
  const clock = new VirtualClock(0);
  const audiences = [audienceOf({ clusterLease: 10 }, clock), audienceOf({}, clock)];
  const sizes = () => audiences.map(({ size }) => size);
  for (const audience of audiences) audience.note("instance-0");
  const passUntil = async (endMs: number) => {
    clock.after(endMs - clock.nowMs(), () => {});
    await clock.runUntil(() => clock.nowMs() >= endMs);
  };
  await passUntil(1_000);
  assert.deepEqual(sizes(), [1, 1]);
  await passUntil(14_000);
  assert.deepEqual(sizes(), [1, 0]);
  await passUntil(16_000);
  assert.deepEqual(sizes(), [0, 0]);
});
