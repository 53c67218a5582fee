import assert from "node:assert/strict";
import { sleep } from "../../../src/core/clock.ts";
import { Random } from "../../../src/core/random.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";

Deno.test("events happen by time, then in the order asked for; cancelled ones never", () => {
  const random = new Random(1);
  const clock = new VirtualClock(500);
  const happened: { dueMs: number; order: number }[] = [];
  const expected: typeof happened = [];
  for (let order = 0; order < 2000; order++) {
    const delayMs = random.below(50);
    const dueMs = 500 + delayMs;
    const cancel = clock.after(delayMs, () => {
      assert.equal(clock.nowMs(), dueMs);
      happened.push({ dueMs, order });
    });
    if (random.below(4) === 0) cancel();
    else expected.push({ dueMs, order });
  }
  while (clock.step());
  expected.sort((a, b) => a.dueMs - b.dueMs || a.order - b.order);
  assert.deepEqual(happened, expected);
});

Deno.test("the order holds for what events ask for, also when most of it is cancelled", () => {
  const random = new Random(2);
  const clock = new VirtualClock();
  const happened: { dueMs: number; order: number }[] = [];
  const expected = new Map<number, { dueMs: number; order: number }>();
  const cancels: (() => void)[] = [];
  let numAsked = 0;
  const ask = () => {
    const order = numAsked++;
    const event = { dueMs: clock.nowMs() + random.below(20), order };
    expected.set(order, event);
    const cancel = clock.after(event.dueMs - clock.nowMs(), () => {
      happened.push(event);
      while (numAsked < 5000 && random.below(4) > 0) ask();
      for (let i = 0; i < 3; i++) cancels[random.below(cancels.length)]();
    });
    cancels.push(() => {
      cancel();
      if (!happened.includes(event)) expected.delete(order);
    });
  };
  while (numAsked < 5000) {
    for (let i = 0; i < 300; i++) ask();
    while (clock.step());
  }
  assert.ok(happened.length > 500 && happened.length < 4500, `${happened.length} of 5000`);
  const inOrder = [...expected.values()].sort((a, b) => a.dueMs - b.dueMs || a.order - b.order);
  assert.deepEqual(happened, inOrder);
});

Deno.test("what is soon happens before time goes on", () => {
  const clock = new VirtualClock();
  const happened: string[] = [];
  clock.after(1, () => happened.push("later"));
  clock.soon(() => {
    happened.push("soon");
    clock.soon(() => happened.push("soon again"));
  });
  while (clock.step());
  assert.deepEqual(happened, ["soon", "soon again", "later"]);
});

Deno.test("promises settle between events, whatever they wait for", async () => {
  const clock = new VirtualClock();
  const times: number[] = [];
  const work = async () => {
    for (let i = 0; i < 5; i++) {
      await sleep(clock, 10);
      await Promise.resolve();
      times.push(clock.nowMs());
    }
  };
  let isDone = false;
  work().then(() => isDone = true);
  assert.equal(await clock.runUntil(() => isDone), true);
  assert.deepEqual(times, [10, 20, 30, 40, 50]);
  assert.equal(await clock.runUntil(() => false), false, "nothing is left to happen");
});
