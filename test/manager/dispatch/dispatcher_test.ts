import assert from "node:assert/strict";
import type { Priority } from "../../../src/core/protocol/generate.ts";
import type { InstanceInfo } from "../../../src/core/protocol/instance_info.ts";
import { Random } from "../../../src/core/random.ts";
import { Dispatcher, type DispatcherOptions } from "../../../src/manager/dispatch/dispatcher.ts";
import { idleInfo } from "../support.ts";

const defaults: DispatcherOptions = {
  dispatchPolicy: "load",
  loadMetric: "remaining_steps",
  numDispatchInstances: null,
  priorityHeadroomBlocks: null,
};

function dispatcherOf(options: Partial<DispatcherOptions> = {}, seed = 0): Dispatcher {
  return new Dispatcher({ ...defaults, ...options }, new Random(seed));
}

function serving(instanceIds: readonly string[], draining: readonly string[] = []) {
  return instanceIds.map((instanceId) => ({
    registration: { instanceId, instanceType: "both" as const, blockSize: 16, totalBlocks: 851 },
    isDraining: draining.includes(instanceId),
  }));
}

const idsOf = (count: number) =>
  Array.from({ length: count }, (_, i) => `instance-${String(i).padStart(3, "0")}`);

/** How often each instance was chosen. */
function countsOf(chosen: readonly (string | null)[]): Map<string | null, number> {
  const counts = new Map<string | null, number>();
  for (const id of chosen) counts.set(id, (counts.get(id) ?? 0) + 1);
  return counts;
}

function burst(dispatcher: Dispatcher, count: number, promptTokens: (i: number) => number) {
  return Array.from(
    { length: count },
    (_, i) => dispatcher.dispatch({ requestId: `r${i}`, promptTokens: promptTokens(i) }, 0),
  );
}

function report(instanceId: string, overrides: Partial<InstanceInfo> = {}): InstanceInfo {
  return idleInfo(instanceId, { totalBlocks: 851, freeBlocks: 851, ...overrides });
}

for (const dispatchPolicy of ["load", "queue", "balanced", "rr"] as const) {
  for (const loadMetric of ["remaining_steps", "usage_ratio", "virtual_usage"] as const) {
    Deno.test(`a burst between two reports does not herd: ${dispatchPolicy}, ${loadMetric}`, () => {
      const dispatcher = dispatcherOf({ dispatchPolicy, loadMetric });
      dispatcher.setInstances(serving(idsOf(10)));
      for (const id of idsOf(10)) dispatcher.report(report(id));
      const counts = countsOf(burst(dispatcher, 1000, () => 100));
      assert.equal(counts.size, 10);
      for (const [id, count] of counts) {
        assert.ok(count >= 99 && count <= 101, `${id} got ${count} of 1000`);
      }
    });
  }
}

Deno.test("a burst fills up the less loaded first", () => {
  const dispatcher = dispatcherOf({ loadMetric: "usage_ratio" });
  const [busy, free] = idsOf(2);
  dispatcher.setInstances(serving([busy, free]));
  dispatcher.report(report(busy, { usedBlocks: 400, freeBlocks: 451, runningRequests: 20 }));
  dispatcher.report(report(free));
  const counts = countsOf(burst(dispatcher, 100, () => 16 * 10));
  // 400 blocks are 40 prompts of 10: those first, then one here, one there.
  assert.deepEqual([counts.get(busy), counts.get(free)], [30, 70]);
});

Deno.test("prompts of different lengths: blocks are spread, not numbers", () => {
  const random = new Random(4);
  const dispatcher = dispatcherOf({ loadMetric: "usage_ratio" });
  dispatcher.setInstances(serving(idsOf(8)));
  const lengths = Array.from({ length: 1000 }, () => 1 + random.below(2000));
  const chosen = burst(dispatcher, 1000, (i) => lengths[i]);
  const tokens = new Map<string, number>();
  chosen.forEach((id, i) => tokens.set(id!, (tokens.get(id!) ?? 0) + lengths[i]));
  assert.ok(Math.max(...tokens.values()) - Math.min(...tokens.values()) <= 2000);
});

Deno.test("the account returns to zero by reports, losses and time", () => {
  const dispatcher = dispatcherOf();
  dispatcher.setInstances(serving(["a", "b", "c"]));
  const chosen = burst(dispatcher, 30, () => 16);
  assert.equal(dispatcher.numPending, 30);
  const received = chosen.flatMap((id, i) => id === "a" ? [`r${i}`] : []);
  dispatcher.report(report("a", { receivedRequestIds: received }));
  assert.equal(dispatcher.numPending, 20);
  dispatcher.setInstances(serving(["a", "b"]));
  assert.equal(dispatcher.numPending, 10, "c is gone");
  dispatcher.dispatch({ requestId: "late", promptTokens: 1 }, 29_999);
  assert.equal(dispatcher.numPending, 11);
  dispatcher.dispatch({ requestId: "later", promptTokens: 1 }, 30_000);
  assert.equal(dispatcher.numPending, 2, "b never reported its 10");
});

Deno.test("an instance is judged by its latest report and what it has not counted", () => {
  const dispatcher = dispatcherOf();
  dispatcher.setInstances(serving(["a", "b"]));
  dispatcher.report(report("a", { runningRequests: 4, usedBlocks: 800, freeBlocks: 51 }));
  dispatcher.report(report("b", { runningRequests: 4, usedBlocks: 700, freeBlocks: 151 }));
  const choose = (requestId: string) => dispatcher.dispatch({ requestId, promptTokens: 16 }, 0);
  assert.equal(choose("r1"), "b");
  dispatcher.report(report("a"));
  assert.equal(choose("r2"), "a");
  assert.equal(dispatcher.dispatch({ requestId: "r3", promptTokens: 16 * 1000 }, 0), "a");
  assert.equal(choose("r4"), "b", "a has a long prompt under way");
  dispatcher.report(report("a", { receivedRequestIds: ["r2", "r3"] }));
  assert.equal(choose("r5"), "a");
});

Deno.test("a request of high priority brings its headroom along before it is reported", () => {
  const dispatcher = dispatcherOf({ loadMetric: "virtual_usage", priorityHeadroomBlocks: 700 });
  dispatcher.setInstances(serving(["a", "b"]));
  for (const id of ["a", "b"]) dispatcher.report(report(id));
  const choose = (requestId: string, priority: Priority) =>
    dispatcher.dispatch({ requestId, promptTokens: 16, priority }, 0);
  assert.equal(choose("high", "high"), "a");
  const chosen = ["r1", "r2", "r3"].map((id) => choose(id, "normal"));
  assert.deepEqual(chosen, ["b", "b", "b"], "b has more blocks for each of them");
  dispatcher.report(report("a", { receivedRequestIds: ["high"] }));
  assert.equal(choose("r4", "normal"), "a", "it has ended");
});

Deno.test("virtual usage: a long prompt goes where it fits, although others are freer", () => {
  const dispatcher = dispatcherOf({ loadMetric: "virtual_usage" });
  dispatcher.setInstances(serving(["a", "b"]));
  // 451 blocks for one request, and 500 for 25.
  dispatcher.report(report("a", { runningRequests: 1, usedBlocks: 400, freeBlocks: 451 }));
  dispatcher.report(report("b", { runningRequests: 25, usedBlocks: 351, freeBlocks: 500 }));
  const choose = (requestId: string, blocks: number) =>
    dispatcher.dispatch({ requestId, promptTokens: 16 * blocks }, 0);
  assert.equal(choose("long", 480), "b");
  assert.equal(choose("short", 4), "a");
});

Deno.test("virtual usage: requests of high priority share the instance that has headroom", () => {
  const dispatcher = dispatcherOf({ loadMetric: "virtual_usage", priorityHeadroomBlocks: 300 });
  dispatcher.setInstances(serving(["a", "b", "c"]));
  const running = { runningRequests: 5, usedBlocks: 200, freeBlocks: 651 };
  dispatcher.report(report("a", { ...running, runningHighPriorityRequests: 1 }));
  for (const id of ["b", "c"]) dispatcher.report(report(id, running));
  const choose = (requestId: string, priority: Priority) =>
    dispatcher.dispatch({ requestId, promptTokens: 16, priority }, 0);
  const normal = ["n1", "n2"].map((id) => choose(id, "normal"));
  assert.deepEqual(normal.sort(), ["b", "c"]);
  const high = ["h1", "h2", "h3"].map((id) => choose(id, "high"));
  assert.deepEqual(high, ["a", "a", "b"], "until one that has yet to give headroom is freer");
});

Deno.test("virtual usage: requests of high priority go where no prompt is computed, or the least", () => {
  const dispatcher = dispatcherOf({ loadMetric: "virtual_usage" });
  dispatcher.setInstances(serving(["a", "b", "c"]));
  const running = { runningRequests: 5, usedBlocks: 200, freeBlocks: 651 };
  dispatcher.report(report("a", { ...running, prefillBlocks: 100 }));
  dispatcher.report(report("b", { ...running, waitingRequests: 1, allWaitingBlocks: 40 }));
  dispatcher.report(report("c", { ...running, usedBlocks: 800, freeBlocks: 51 }));
  const choose = (requestId: string, blocks: number, priority: Priority) =>
    dispatcher.dispatch({ requestId, promptTokens: 16 * blocks, priority }, 0);
  assert.equal(choose("h1", 30, "high"), "c", "nothing is ahead, although it is the fullest");
  assert.equal(choose("h2", 20, "high"), "c", "30 blocks are");
  assert.equal(choose("h3", 1, "high"), "b", "40 blocks are, and 50 there");
  assert.equal(choose("n1", 1, "normal"), "a", "the load alone");
});

Deno.test("a request that is dispatched again leaves the account of the instance before", () => {
  const dispatcher = dispatcherOf({ loadMetric: "usage_ratio" });
  dispatcher.setInstances(serving(["a", "b"]));
  const choose = (requestId: string, promptTokens: number) =>
    dispatcher.dispatch({ requestId, promptTokens }, 0);
  assert.equal(choose("r", 1600), "a");
  assert.equal(choose("r", 800), "b");
  assert.equal(choose("s", 16), "a", "which has nothing under way any more");
});

Deno.test("only the first instances are chosen; another takes the place of one that goes", () => {
  const dispatcher = dispatcherOf({ numDispatchInstances: 2, dispatchPolicy: "rr" });
  dispatcher.setInstances(serving(["z", "b", "a"]));
  assert.deepEqual([...countsOf(burst(dispatcher, 4, () => 1)).keys()].sort(), ["b", "z"]);
  dispatcher.setInstances(serving(["z", "a"]));
  assert.deepEqual([...countsOf(burst(dispatcher, 4, () => 1)).keys()].sort(), ["a", "z"]);
  dispatcher.setInstances(serving(["z", "a", "c"], ["z"]));
  assert.deepEqual([...countsOf(burst(dispatcher, 4, () => 1)).keys()].sort(), ["a", "c"]);
});

Deno.test("without an instance a request waits, and nothing is accounted", () => {
  const dispatcher = dispatcherOf();
  assert.equal(dispatcher.dispatch({ requestId: "r", promptTokens: 1 }, 0), null);
  dispatcher.setInstances(serving(["a"], ["a"]));
  assert.equal(dispatcher.dispatch({ requestId: "r", promptTokens: 1 }, 0), null);
  assert.equal(dispatcher.numPending, 0);
  dispatcher.report(report("stranger"));
});

Deno.test("a newcomer is not flooded by the balanced policy", () => {
  const dispatcher = dispatcherOf({ dispatchPolicy: "balanced" });
  dispatcher.setInstances(serving(["a", "b"]));
  burst(dispatcher, 1000, () => 1);
  dispatcher.setInstances(serving(["a", "b", "c"]));
  const counts = countsOf(burst(dispatcher, 30, () => 1));
  assert.deepEqual([...counts.values()], [10, 10, 10]);
});
