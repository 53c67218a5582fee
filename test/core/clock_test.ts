import assert from "node:assert/strict";
import { type Clock, realClock, sleep } from "../../src/core/clock.ts";
import { until } from "../patience.ts";

Deno.test("the real clock counts milliseconds since the epoch and does not go back", () => {
  const before = realClock.nowMs();
  const after = realClock.nowMs();
  assert.ok(after >= before);
  assert.ok(Math.abs(before - Date.now()) < 60_000);
});

Deno.test("after calls once; cancelled, never", async () => {
  const calls: string[] = [];
  const cancel = realClock.after(1, () => calls.push("cancelled"));
  realClock.after(1, () => calls.push("called"));
  cancel();
  await until(() => calls.length > 0, "the clock has called");
  assert.deepEqual(calls, ["called"]);
});

Deno.test("sleep uses the clock it is given", async () => {
  const pending: { delayMs: number; callback: () => void }[] = [];
  const clock: Clock = {
    nowMs: () => 0,
    after: (delayMs, callback) => {
      pending.push({ delayMs, callback });
      return () => {};
    },
    soon: () => {},
  };
  const slept = sleep(clock, 250);
  assert.equal(pending.length, 1);
  assert.equal(pending[0].delayMs, 250);
  pending[0].callback();
  await slept;
});
