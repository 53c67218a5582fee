import assert from "node:assert/strict";
import { Pacer } from "../../../src/executor/sim/pacer.ts";
import { Random } from "../../../src/core/random.ts";

/** A clock that only sleeping moves, and a sleep that is late. */
function lateClock(latenessMs: () => number) {
  let nowMs = 0;
  const pacer = new Pacer(() => nowMs, (delayMs) => {
    nowMs += delayMs + latenessMs();
  });
  return { pacer, now: () => nowMs };
}

Deno.test("lateness of timers does not add up", async () => {
  const random = new Random(1);
  const { pacer, now } = lateClock(() => 3 * random.uniform());
  let askedMs = 0;
  for (let i = 0; i < 1000; i++) {
    const delayMs = 5 * random.uniform();
    askedMs += delayMs;
    await pacer.wait(delayMs);
    assert.ok(now() > askedMs - 3 - 1e-6 && now() < askedMs + 3, `after ${i} waits`);
  }
});

Deno.test("a long stall is not made up for", async () => {
  let lateMs = 1000;
  const { pacer, now } = lateClock(() => lateMs);
  await pacer.wait(10);
  lateMs = 0;
  for (let i = 0; i < 10; i++) await pacer.wait(10);
  assert.equal(now(), 1010 + 80);
});

Deno.test("exact sleeps are waited out exactly", async () => {
  const { pacer, now } = lateClock(() => 0);
  for (let i = 0; i < 10; i++) await pacer.wait(7);
  assert.equal(now(), 70);
});
