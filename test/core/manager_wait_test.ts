import assert from "node:assert/strict";
import { UnavailableError, UsageError } from "../../src/core/errors.ts";
import { untilManagerAnswers } from "../../src/core/manager_wait.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

/** What becomes of a wait of 60 s whose attempts do this, one after the other; the last again and again. */
async function wait(attempts: (Error | string)[], givenUpMs = Infinity) {
  const clock = new VirtualClock();
  const startMs = clock.nowMs();
  let waits = 0, tries = 0;
  const config = {
    address: "unix:/m",
    clock,
    timeoutMs: 60_000,
    onWait: () => void waits++,
    isGivenUp: () => clock.nowMs() - startMs >= givenUpMs,
  };
  const outcome = untilManagerAnswers(config, () => {
    const next = attempts[Math.min(tries++, attempts.length - 1)];
    return next instanceof Error ? Promise.reject(next) : Promise.resolve(next);
  }).catch((error) => error);
  let isOver = false;
  outcome.then(() => isOver = true);
  await clock.runUntil(() => isOver);
  return { outcome: await outcome, waits, tries, tookMs: clock.nowMs() - startMs };
}

const nobody = new UnavailableError("nobody there");

Deno.test("waiting for a manager: one that answers at once, or later, which is told once", async () => {
  assert.deepEqual(await wait(["a"]), { outcome: "a", waits: 0, tries: 1, tookMs: 0 });
  const later = await wait([...Array(500).fill(nobody), "a"]);
  assert.deepEqual(later, { outcome: "a", waits: 1, tries: 501, tookMs: 50_000 });
});

Deno.test("waiting for a manager: none in a minute, or not needed any more", async () => {
  const { outcome, waits, tookMs } = await wait([nobody]);
  assert.match(outcome.message, /^no manager answers at unix:\/m \(nobody there\)\. Start one/);
  assert.deepEqual([waits, tookMs], [1, 60_000]);
  assert.equal((await wait([nobody], 1_000)).tookMs, 1_000);
});

Deno.test("waiting for a manager: a refusal is an answer", async () => {
  const refusal = new UsageError("another model");
  assert.deepEqual(await wait([nobody, refusal]), {
    outcome: refusal,
    waits: 1,
    tries: 2,
    tookMs: 100,
  });
});
