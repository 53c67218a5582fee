import assert from "node:assert/strict";
import { StepWatch, type StepWatchConfig } from "../../../src/instance/engine/step_watch.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";

/** Times at which a step was found to hang, and what to find it with. */
function watch(config: Partial<StepWatchConfig> = {}) {
  const clock = new VirtualClock(0);
  const hangsMs: number[] = [];
  const watch = new StepWatch({
    clock,
    stepTimeoutMs: 1_000,
    stepTimeoutPerTokenMs: 0,
    onHang: () => hangsMs.push(clock.nowMs()),
    ...config,
  });
  const pass = async (ms: number) => {
    let isOver = false;
    clock.after(ms, () => isOver = true);
    await clock.runUntil(() => isOver);
  };
  return { watch, clock, hangsMs, pass };
}

Deno.test("StepWatch: a step that does not end is found once, after its time and a quarter at most", async () => {
  for (const beginMs of [0, 1, 100, 249]) {
    const { watch: steps, hangsMs, pass } = watch();
    steps.begin(1); // the timer begins to run
    await pass(beginMs);
    steps.end();
    steps.begin(1);
    await pass(10_000);
    assert.equal(hangsMs.length, 1);
    const tookMs = hangsMs[0] - beginMs;
    assert.ok(tookMs >= 1_000 && tookMs <= 1_250, `${tookMs} ms`);
  }
});

Deno.test("StepWatch: steps that end in time are not found, however many follow each other", async () => {
  const { watch: steps, hangsMs, pass } = watch();
  for (let i = 0; i < 20; i++) {
    steps.begin(1);
    await pass(999);
    steps.end();
  }
  assert.deepEqual(hangsMs, []);
});

Deno.test("StepWatch: more tokens may take longer", async () => {
  const { watch: steps, hangsMs, pass } = watch({ stepTimeoutPerTokenMs: 10 });
  steps.begin(400);
  await pass(4_999);
  assert.deepEqual(hangsMs, []);
  await pass(300);
  assert.deepEqual(hangsMs, [5_250]);
});

Deno.test("StepWatch: a step is found a quarter late at most, whatever its time", async () => {
  for (const tokens of [1, 10, 13, 17, 30, 333]) {
    for (const beginMs of [1, 249]) {
      const { watch: steps, hangsMs, pass } = watch({ stepTimeoutPerTokenMs: 10 });
      steps.begin(1); // the timer begins to run
      await pass(beginMs);
      steps.end();
      steps.begin(tokens);
      await pass(10_000);
      assert.ok(hangsMs[0] - beginMs <= steps.longestMs(tokens));
      const lateMs = hangsMs[0] - beginMs - 1_000 - 10 * tokens;
      assert.ok(lateMs >= 0 && lateMs <= 250, `${tokens} tokens: ${lateMs} ms`);
    }
  }
});

Deno.test("StepWatch: the timer runs only while there are steps, and not if they may take any time", async () => {
  const { watch: steps, clock } = watch();
  /** Until nothing is left to happen. */
  const timeAfterAll = async () => {
    await clock.runUntil(() => false);
    return clock.nowMs();
  };
  steps.begin(1);
  steps.end();
  assert.equal(await timeAfterAll(), 250);
  steps.begin(1);
  steps.close();
  assert.equal(await timeAfterAll(), 250);
  const endless = watch({ stepTimeoutMs: Infinity });
  endless.watch.begin(1);
  assert.equal(endless.clock.step(), false);
});
