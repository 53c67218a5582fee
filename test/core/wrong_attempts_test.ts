import assert from "node:assert/strict";
import { WrongAttempts } from "../../src/core/wrong_attempts.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

Deno.test("wrong attempts: an eleventh within a minute waits, elsewhere and later none does", async () => {
  const clock = new VirtualClock();
  const attempts = new WrongAttempts(clock);
  const waitsMs = async (place: string) => {
    const startMs = clock.nowMs();
    const admitted = attempts.admit(place);
    await clock.runUntil(() => false); // until nothing is left to happen
    assert.equal(await admitted, true);
    return clock.nowMs() - startMs;
  };
  for (let i = 1; i <= 10; i++) {
    assert.equal(await waitsMs("a"), 0);
    assert.equal(attempts.note("a"), i);
  }
  assert.equal(await waitsMs("a"), 1_000);
  assert.equal(await waitsMs("b"), 0);
  clock.after(60_000, () => {});
  await clock.runUntil(() => false);
  assert.equal(await waitsMs("a"), 0);
  assert.equal(attempts.note("a"), 1);
});
