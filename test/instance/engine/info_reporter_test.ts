import assert from "node:assert/strict";
import type { Clock } from "../../../src/core/clock.ts";
import type { InstanceInfo } from "../../../src/core/protocol/instance_info.ts";
import { InfoReporter } from "../../../src/instance/engine/info_reporter.ts";
import { idleInfo } from "../../manager/support.ts";

/** A clock that the test turns; one timer at a time. */
class ManualClock implements Clock {
  #nowMs = 1000;
  #timer: { dueMs: number; callback: () => void } | null = null;

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    assert.equal(this.#timer, null);
    this.#timer = { dueMs: this.#nowMs + delayMs, callback };
    return () => this.#timer = null;
  }

  soon(): void {
    assert.fail("not used here");
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    if (!this.#timer || this.#timer.dueMs > this.#nowMs) return;
    const { callback } = this.#timer;
    this.#timer = null;
    callback();
  }
}

function setUp() {
  const clock = new ManualClock();
  const sent: InstanceInfo[] = [];
  const reporter = new InfoReporter(clock, 50, (info) => sent.push(info));
  const report = (
    stepId: number,
    runningRequests: number,
    finishedRequestIds: string[] = [],
    receivedRequestIds: string[] = [],
  ) =>
    reporter.report({
      timestampMs: clock.nowMs(),
      stepId,
      runningRequests,
      waitingRequests: 0,
      killedRequests: 0,
      finishedRequestIds,
      receivedRequestIds,
    } as unknown as InstanceInfo);
  return { clock, sent, reporter, report, steps: () => sent.map(({ stepId }) => stepId) };
}

Deno.test("info reporter: the first report goes at once, then the latest per interval", () => {
  const { clock, report, steps } = setUp();
  for (let step = 1; step <= 12; step++) {
    report(step, 1);
    clock.advance(10);
  }
  assert.deepEqual(steps(), [1, 5, 10]);
  clock.advance(40);
  assert.deepEqual(steps(), [1, 5, 10, 12], "what came last is not forgotten");
  clock.advance(500);
  assert.equal(steps().length, 4);
});

Deno.test("info reporter: another interval counts from the next report on", () => {
  const { clock, reporter, report, steps } = setUp();
  report(1, 1);
  reporter.setInterval(100);
  for (let step = 2; step <= 30; step++) {
    clock.advance(10);
    report(step, 1);
  }
  assert.deepEqual(steps(), [1, 10, 20]);
});

Deno.test("info reporter: becoming idle is told at once, being idle is not told again", () => {
  const { report, steps } = setUp();
  report(1, 1);
  report(2, 1);
  report(3, 0);
  report(3, 0);
  assert.deepEqual(steps(), [1, 3]);
});

Deno.test("info reporter: finished and received requests of reports left out are in the next, once", () => {
  const { clock, report, sent } = setUp();
  report(1, 3);
  report(2, 2, ["a"], ["c"]);
  report(2, 2);
  report(3, 1, ["b"], ["d"]);
  clock.advance(50);
  assert.deepEqual(sent[1].finishedRequestIds, ["a", "b"]);
  assert.deepEqual(sent[1].receivedRequestIds, ["c", "d"]);
  report(4, 1);
  clock.advance(50);
  assert.deepEqual(sent[2].finishedRequestIds, []);
});

Deno.test("info reporter: due is what would be sent at once", () => {
  const { clock, reporter, report } = setUp();
  assert.ok(reporter.isDue(false), "nothing was sent before");
  report(1, 1);
  assert.ok(!reporter.isDue(false));
  assert.ok(reporter.isDue(true), "it becomes idle");
  report(2, 0);
  assert.ok(!reporter.isDue(true), "it was idle before");
  clock.advance(49);
  assert.ok(!reporter.isDue(false));
  clock.advance(1);
  assert.ok(reporter.isDue(false));
});

Deno.test("info reporter: nothing is sent after close", () => {
  const { clock, report, reporter, steps } = setUp();
  report(1, 1);
  report(2, 1);
  reporter.close();
  clock.advance(100);
  report(3, 0);
  clock.advance(100);
  assert.deepEqual(steps(), [1]);
});

Deno.test("info reporter: a request that begins to wait for its leaving is told at once", () => {
  const { clock, reporter, steps } = setUp();
  const report = (stepId: number, leavingRequests: number) =>
    reporter.report({
      ...idleInfo("i", { stepId, leavingRequests, runningRequests: 3 }),
      timestampMs: clock.nowMs(),
    });
  report(1, 0);
  report(2, 1);
  report(3, 1);
  report(4, 3);
  report(5, 2);
  assert.deepEqual(steps(), [1, 2, 4]);
});
