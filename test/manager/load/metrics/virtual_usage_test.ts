import assert from "node:assert/strict";
import type { Priority } from "../../../../src/core/protocol/generate.ts";
import { Random } from "../../../../src/core/random.ts";
import {
  aheadBlocks,
  dispatchLoad,
  dispatchLoadWith,
  migrationLoad,
  scalingLoad,
} from "../../../../src/manager/load/load_metric.ts";
import type { ComingRequest } from "../../../../src/manager/load/policy.ts";
import {
  comingHeadroomBlocks,
  loadStateOf,
  priorityHeadroom,
} from "../../../../src/manager/load/load_state.ts";
import {
  freeness,
  requestUsageBlocks,
  type UsageRequest,
  virtualUsageBlocks,
} from "../../../../src/manager/load/metrics/virtual_usage.ts";
import { idleInfo } from "../../support.ts";

interface Instance {
  readonly requests: readonly UsageRequest[];
  readonly running: Readonly<Record<Priority, number>>;
}

function randomInstance(random: Random): Instance {
  const running = Array.from({ length: random.below(6) }, (): UsageRequest => ({
    kind: "running",
    priority: random.below(3) === 0 ? "high" : "normal",
    physicalBlocks: 1 + random.below(9),
  }));
  const waiting = Array.from({ length: random.below(4) }, (_, i): UsageRequest => ({
    kind: "waiting",
    isHeadOfLine: i === 0,
    demandBlocks: (1 + random.below(40)) / 4,
  }));
  const count = (priority: Priority) =>
    running.filter((request) => request.kind === "running" && request.priority === priority).length;
  return {
    requests: [...running, ...waiting],
    running: { high: count("high"), normal: count("normal") },
  };
}

/** What an instance with these requests reports. */
function reportOf({ requests, running }: Instance, totalBlocks: number) {
  let usedBlocks = 0, waitingRequests = 0, firstWaitingBlocks = 0;
  for (const request of requests) {
    if (request.kind === "running") usedBlocks += request.physicalBlocks;
    if (request.kind !== "waiting") continue;
    waitingRequests++;
    if (request.isHeadOfLine) firstWaitingBlocks = request.demandBlocks;
  }
  return idleInfo("a", {
    totalBlocks,
    usedBlocks,
    freeBlocks: totalBlocks - usedBlocks,
    runningRequests: running.high + running.normal,
    runningHighPriorityRequests: running.high,
    waitingRequests,
    firstWaitingBlocks,
  });
}

Deno.test("virtual usage: of an instance it is the sum over its requests", () => {
  const random = new Random(1);
  for (let i = 0; i < 1000; i++) {
    const instance = randomInstance(random);
    const headroomBlocks = random.below(2) === 0 ? null : random.below(60);
    const headroom = priorityHeadroom(100, headroomBlocks);
    const expected = instance.requests
      .map((request) => requestUsageBlocks(request, headroom, instance.running))
      .reduce((a, b) => a + b, 0);
    const state = loadStateOf(reportOf(instance, 100), { priorityHeadroomBlocks: headroomBlocks });
    assert.ok(Math.abs(virtualUsageBlocks(state) - expected) < 1e-9);
    const batch = instance.running.high + instance.running.normal;
    if (batch > 0) assert.ok(Math.abs(freeness(state) - (100 - expected) / batch) < 1e-9);
  }
});

Deno.test("virtual usage: of each kind of request, in numbers", () => {
  const headroom = { high: 90, normal: 0 };
  const running = { high: 3, normal: 2 };
  const usage = (request: UsageRequest) => requestUsageBlocks(request, headroom, running);
  assert.equal(usage({ kind: "running", priority: "high", physicalBlocks: 4 }), 34);
  assert.equal(usage({ kind: "running", priority: "normal", physicalBlocks: 4 }), 4);
  assert.equal(usage({ kind: "waiting", isHeadOfLine: true, demandBlocks: 7.5 }), 7.5);
  assert.equal(usage({ kind: "waiting", isHeadOfLine: false, demandBlocks: 7.5 }), 0);
  assert.equal(usage({ kind: "fake" }), Infinity);
});

Deno.test("freeness: idle, queue only, overfull, draining", () => {
  assert.equal(freeness(loadStateOf(idleInfo("a"))), Infinity);
  const queued = idleInfo("a", { waitingRequests: 3, firstWaitingBlocks: 30 });
  assert.equal(freeness(loadStateOf(queued)), 70);
  const overfull = idleInfo("a", {
    usedBlocks: 90,
    freeBlocks: 10,
    runningRequests: 4,
    waitingRequests: 1,
    firstWaitingBlocks: 30,
  });
  assert.equal(freeness(loadStateOf(overfull)), -5);
  assert.equal(freeness(loadStateOf(idleInfo("a"), { isDraining: true })), -Infinity);
});

Deno.test("freeness: high priority keeps an instance for itself", () => {
  const report = { usedBlocks: 10, freeBlocks: 90, runningRequests: 2 };
  const normal = loadStateOf(idleInfo("a", report));
  const high = loadStateOf(idleInfo("a", { ...report, runningHighPriorityRequests: 1 }));
  assert.equal(freeness(normal), 45);
  assert.equal(freeness(high), 1, "88 of 100 blocks are headroom");
  assert.ok(dispatchLoad("virtual_usage", high) > dispatchLoad("virtual_usage", normal));
  assert.equal(migrationLoad("virtual_usage", high, false), -1);
});

Deno.test("headroom: the paper's instance is left 1600 of its 13616 tokens", () => {
  assert.deepEqual(priorityHeadroom(851, null), { high: 751, normal: 0 });
  assert.equal(851 - 751, 1600 / 16);
  assert.deepEqual(priorityHeadroom(851, 0), { high: 0, normal: 0 });
});

Deno.test("virtual usage: requests under way count as running for dispatch", () => {
  const report = idleInfo("a", { usedBlocks: 20, freeBlocks: 80, runningRequests: 3 });
  const state = loadStateOf(report, { pendingRequests: 2, pendingBlocks: 10 });
  assert.equal(dispatchLoad("virtual_usage", state), -70 / 5);
  assert.equal(migrationLoad("virtual_usage", state, false), -80 / 3);
});

Deno.test("virtual usage: the load with a request is the load when it is under way", () => {
  const random = new Random(2);
  for (let i = 0; i < 1000; i++) {
    const isHigh = random.below(2) === 0;
    // What waits comes before a normal request, and behind one of high priority.
    const report = { ...reportOf(randomInstance(random), 100), waitingRequests: 0 };
    report.firstWaitingBlocks = 0;
    const before = {
      priorityHeadroomBlocks: random.below(50),
      pendingRequests: random.below(3),
      pendingBlocks: random.below(20),
      pendingHighPriorityRequests: 0,
    };
    const priority = isHigh ? "high" : "normal";
    const blocks = random.below(90) / 2;
    const coming: ComingRequest = {
      priority,
      blocks,
      headroomBlocks: isHigh ? comingHeadroomBlocks(report, before) : 0,
    };
    const after = {
      ...before,
      pendingRequests: before.pendingRequests + 1,
      pendingBlocks: before.pendingBlocks + blocks,
      pendingHighPriorityRequests: isHigh ? 1 : 0,
    };
    const load = dispatchLoadWith("virtual_usage", loadStateOf(report, before), coming);
    assert.ok(Math.abs(load - dispatchLoad("virtual_usage", loadStateOf(report, after))) < 1e-9);
    for (const metric of ["remaining_steps", "usage_ratio"] as const) {
      const state = loadStateOf(report, before);
      assert.equal(dispatchLoadWith(metric, state, coming), dispatchLoad(metric, state));
    }
  }
});

Deno.test("virtual usage: no load is less than infinite where an instance drains", () => {
  const state = loadStateOf(idleInfo("a"), { isDraining: true });
  const coming = { priority: "normal", blocks: 1, headroomBlocks: 0 } as const;
  assert.equal(
    dispatchLoadWith("virtual_usage", state, coming),
    Infinity,
  );
  assert.equal(scalingLoad("virtual_usage", state), Infinity);
});

Deno.test("virtual usage: a normal request comes behind all that waits, a high one before it", () => {
  const report = idleInfo("a", {
    usedBlocks: 60,
    freeBlocks: 40,
    runningRequests: 3,
    waitingRequests: 4,
    firstWaitingBlocks: 10,
    allWaitingBlocks: 50,
  });
  const load = (priority: Priority) =>
    dispatchLoadWith("virtual_usage", loadStateOf(report), {
      priority,
      blocks: 6,
      headroomBlocks: 0,
    });
  assert.equal(load("normal"), 16 / 8);
  assert.equal(load("high"), -24 / 4);
});

Deno.test("virtual usage: prompts that are computed, wait or are on their way come before a high one", () => {
  const report = idleInfo("a", { prefillBlocks: 3, waitingRequests: 2, allWaitingBlocks: 20 });
  const state = loadStateOf(report, { pendingRequests: 1, pendingBlocks: 100 });
  const coming = (priority: Priority) => ({ priority, blocks: 6, headroomBlocks: 0 });
  assert.equal(aheadBlocks("virtual_usage", state, coming("high")), 123);
  assert.equal(aheadBlocks("virtual_usage", state, coming("normal")), 0);
  assert.equal(aheadBlocks("remaining_steps", state, coming("high")), 0);
});

Deno.test("virtual usage: for scaling all that waits counts, not the heads of the queues alone", () => {
  const state = loadStateOf(idleInfo("a", {
    usedBlocks: 60,
    freeBlocks: 40,
    runningRequests: 3,
    waitingRequests: 5,
    firstWaitingBlocks: 10,
    allWaitingBlocks: 80,
  }));
  assert.equal(dispatchLoad("virtual_usage", state), -30 / 3);
  assert.equal(scalingLoad("virtual_usage", state), 40 / 8);
  assert.equal(scalingLoad("virtual_usage", loadStateOf(idleInfo("a"))), -Infinity);
  for (const metric of ["remaining_steps", "usage_ratio"] as const) {
    assert.equal(scalingLoad(metric, state), dispatchLoad(metric, state));
  }
});
