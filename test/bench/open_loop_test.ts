import assert from "node:assert/strict";
import { type OpenLoopResult, runOpenLoop, type Send } from "../../src/bench/open_loop.ts";
import { sleep } from "../../src/core/clock.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

interface Planned {
  readonly arrivalMs: number;
  readonly tokens?: number;
  readonly failure?: string;
}

/** Runs a load on a virtual clock against a server that is made for it. */
async function run(
  requests: readonly Planned[],
  makeSend: (clock: VirtualClock) => Send<Planned>,
): Promise<OpenLoopResult> {
  const clock = new VirtualClock(1_000_000);
  let result: OpenLoopResult | null = null;
  const running = runOpenLoop(requests, makeSend(clock), clock).then((value) => result = value);
  await clock.runUntil(() => result !== null);
  return await running;
}

/** Serves one after the other: 100 ms to the first token, 10 ms to each that follows. */
function oneByOne(clock: VirtualClock): Send<Planned> {
  let before = Promise.resolve();
  return ({ tokens = 1, failure }, onTokens) => {
    const mine = before.then(async () => {
      await sleep(clock, 100);
      if (failure) throw new Error(failure);
      onTokens(1);
      for (let i = 1; i < tokens; i++) {
        await sleep(clock, 10);
        onTokens(1);
      }
    });
    before = mine.catch(() => {});
    return mine;
  };
}

function assertNear(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 0.01 * expected, `${actual} is not ${expected}`);
}

Deno.test("requests do not wait for the answers of others, so queueing shows", async () => {
  const requests = [0, 10, 20].map((arrivalMs) => ({ arrivalMs, tokens: 3 }));
  const result = await run(requests, oneByOne);
  // Ends at 120, 240 and 360 ms.
  assert.deepEqual([result.ttftMs.quantiles[0], result.ttftMs.max], [100, 320]);
  assert.deepEqual([result.e2eMs.quantiles[0], result.e2eMs.max], [120, 340]);
  assert.equal(result.itlMs.count, 6);
  assertNear(result.itlMs.p50, 10);
  assert.deepEqual([result.requests, result.outputTokens, result.durationMs], [3, 9, 360]);
  assert.equal(result.lateMs.max, 0);
});

Deno.test("failures are told and are in no latency", async () => {
  const requests = [{ arrivalMs: 0, failure: "status 503" }, { arrivalMs: 5 }];
  const result = await run(requests, oneByOne);
  assert.deepEqual(result.failures, ["status 503"]);
  assert.deepEqual([result.requests, result.ttftMs.count, result.e2eMs.count], [2, 1, 1]);
  assert.equal(result.ttftMs.max, 195);
});

Deno.test("an answer without tokens is a failure", async () => {
  const result = await run([{ arrivalMs: 0 }], () => () => Promise.resolve());
  assert.deepEqual(result.failures, ["the answer had no tokens"]);
});

Deno.test("tokens that arrive together had one gap", async () => {
  const result = await run([{ arrivalMs: 0 }], (clock) => async (_, onTokens) => {
    onTokens(1);
    await sleep(clock, 30);
    onTokens(3);
  });
  assert.deepEqual([result.itlMs.count, result.itlMs.max, result.longestItlMs.max], [3, 30, 30]);
  assert.equal(result.outputTokens, 4);
});

Deno.test("a client that is late counts from the time that was planned", async () => {
  const clock = new VirtualClock();
  // Its timers fire 50 ms too late.
  const late = {
    nowMs: () => clock.nowMs(),
    soon: (callback: () => void) => clock.soon(callback),
    after: (delayMs: number, callback: () => void) => clock.after(delayMs + 50, callback),
  };
  let result: OpenLoopResult | null = null;
  runOpenLoop([{ arrivalMs: 20 }], (_, onTokens) => {
    onTokens(1);
    return Promise.resolve();
  }, late).then((value) => result = value);
  await clock.runUntil(() => result !== null);
  assert.deepEqual([result!.lateMs.max, result!.ttftMs.max], [50, 50]);
});
