import assert from "node:assert/strict";
import { UpdateGate } from "../../src/manager/update_gate.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { FakeCluster } from "./fake_cluster.ts";
import { managerOptions } from "./support.ts";

function gateOf(numInstances: number) {
  const clock = new VirtualClock(1_000);
  const updates: number[] = [];
  const gate = new UpdateGate({
    clock,
    numInstances: () => numInstances,
    update: () => updates.push(clock.nowMs() - 1_000),
  });
  const at = (ms: number) => clock.runUntil(() => clock.nowMs() >= 1_000 + ms);
  return { clock, gate, updates, at };
}

Deno.test("update gate: each change of a few instances is taken up at once", () => {
  const { gate, updates } = gateOf(100);
  for (let i = 0; i < 3; i++) gate.note();
  assert.deepEqual(updates, [0, 0, 0]);
  assert.equal(gate.flush(), false);
});

Deno.test("update gate: of many instances the first change is taken up at once, then all together", async () => {
  const { clock, gate, updates, at } = gateOf(2_000);
  for (let ms = 0; ms < 250; ms += 10) clock.after(ms, () => gate.note());
  clock.after(1_000, () => gate.note());
  await at(2_000);
  assert.deepEqual(updates, [0, 100, 200, 300, 1_000]);
});

Deno.test("update gate: what has changed is taken up when it is needed", () => {
  const { gate, updates } = gateOf(2_000);
  gate.note();
  gate.note();
  assert.equal(updates.length, 1);
  assert.equal(gate.flush(), true);
  assert.equal(updates.length, 2);
  assert.equal(gate.flush(), false);
});

Deno.test("update gate: after its stop nothing is taken up", async () => {
  const { clock, gate, updates, at } = gateOf(2_000);
  gate.note();
  gate.note();
  gate.stop();
  gate.note();
  clock.after(500, () => {});
  await at(500);
  assert.deepEqual(updates, [0]);
});

Deno.test("update gate: an instance that drains gets no request before that is taken up", async () => {
  const numInstances = 200;
  const dispatched: string[] = [];
  const drained = new Set<string>();
  const ids = Array.from({ length: numInstances }, (_, i) => `instance-${i}`).sort();
  const cluster: FakeCluster = new FakeCluster(1, {
    options: {
      ...managerOptions,
      dispatchPolicy: "balanced",
      initialInstances: numInstances,
    },
    onEvent: (event) => {
      if (event.type !== "dispatched") return;
      dispatched.push(event.instanceId);
      assert.ok(!drained.has(event.instanceId), `${event.instanceId} drains`);
      // The instance whose turn is next.
      const next = ids[ids.indexOf(event.instanceId) + 1];
      drained.add(next);
      cluster.manager.drain(next);
    },
  });
  await cluster.start();
  const requests = Array.from({ length: 40 }, (_, i) => cluster.submit(`r${i}`, 5));
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
  assert.equal(dispatched.length, 40);
  assert.deepEqual(requests.map(({ refusal }) => refusal).filter((one) => one !== null), []);
});
