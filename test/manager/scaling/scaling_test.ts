/** The rules of src/manager/README.md, "Scaling", written a second time and compared. */
import assert from "node:assert/strict";
import type { InstanceInfo } from "../../../src/core/protocol/instance_info.ts";
import { Random } from "../../../src/core/random.ts";
import { loadStateOf } from "../../../src/manager/load/load_state.ts";
import { scalingChange, type ScalingPolicyOptions } from "../../../src/manager/scaling/scaling.ts";
import { randomInfos } from "../random_info.ts";
import { idleInfo } from "../support.ts";

const defaults: ScalingPolicyOptions = {
  loadMetric: "remaining_steps",
  scalingPolicy: "avg_load",
  scaleUpThreshold: 10,
  scaleDownThreshold: 60,
  minInstances: 1,
  maxInstances: 16,
};

function change(
  infos: readonly InstanceInfo[],
  options: Partial<ScalingPolicyOptions> = {},
): number {
  return scalingChange(infos.map((info) => loadStateOf(info)), { ...defaults, ...options });
}

Deno.test("scaling: a burst that waits gets its instances at once", () => {
  const queue = { waitingRequests: 30, firstWaitingBlocks: 20, allWaitingBlocks: 600 };
  const busy = { usedBlocks: 90, freeBlocks: 10, runningRequests: 5, ...queue };
  // 590 blocks are missing, and 35 requests are to have 10 each.
  const infos = [idleInfo("a", busy)];
  assert.equal(change(infos, { loadMetric: "virtual_usage" }), 10);
});

interface Numbers {
  readonly total: number;
  readonly used: number;
  readonly available: number;
  readonly requests: number;
  readonly waitingBlocks: number;
}

function pageLoad({ total, used, available, requests, waitingBlocks }: Numbers, isRatio: boolean) {
  if (isRatio) return (used + waitingBlocks) / total;
  return requests === 0 ? -Infinity : -(available - waitingBlocks) / requests;
}

const numbersOf = (info: InstanceInfo): Numbers => ({
  total: info.totalBlocks,
  used: info.usedBlocks,
  available: info.freeBlocks - info.watermarkBlocks,
  requests: info.runningRequests + info.waitingRequests,
  waitingBlocks: info.allWaitingBlocks,
});

const sumOf = (all: readonly Numbers[]): Numbers =>
  all.reduce((a, b) => ({
    total: a.total + b.total,
    used: a.used + b.used,
    available: a.available + b.available,
    requests: a.requests + b.requests,
    waitingBlocks: a.waitingBlocks + b.waitingBlocks,
  }));

function pageChange(infos: readonly InstanceInfo[], options: ScalingPolicyOptions): number {
  if (infos.length < options.minInstances) return options.minInstances - infos.length;
  if (infos.length > options.maxInstances) return options.maxInstances - infos.length;
  const isRatio = options.loadMetric === "usage_ratio";
  const sign = isRatio ? 1 : -1;
  const all = infos.map(numbersOf);
  const last = infos[infos.length - 1];
  const usable = last.totalBlocks - last.watermarkBlocks;
  const largest = Math.max(...all.map((numbers) => pageLoad(numbers, isRatio)));
  const pooled = pageLoad(sumOf(all), isRatio);
  const isAverage = options.scalingPolicy === "avg_load";
  const up = sign * options.scaleUpThreshold;
  if ((isAverage ? pooled : largest) > up) {
    for (let added = 1;; added++) {
      if (infos.length + added > options.maxInstances) return options.maxInstances - infos.length;
      const pool = sumOf(all);
      const grown = {
        ...pool,
        total: pool.total + added * last.totalBlocks,
        available: pool.available + added * usable,
      };
      if (!(pageLoad(grown, isRatio) > up)) return added;
    }
  }
  if (infos.length <= options.minInstances) return 0;
  const pool = sumOf(all);
  const shrunk = {
    ...pool,
    total: pool.total - last.totalBlocks,
    available: pool.available - usable,
  };
  const down = sign * options.scaleDownThreshold;
  return (isAverage ? pageLoad(shrunk, isRatio) : largest) < down ? -1 : 0;
}

Deno.test("scaling: every rule of the README holds for any cluster", () => {
  const random = new Random(1);
  const seen = new Set<number>();
  for (let i = 0; i < 3000; i++) {
    const isRatio = random.below(2) === 0;
    const minInstances = 1 + random.below(4);
    const options: ScalingPolicyOptions = {
      loadMetric: isRatio ? "usage_ratio" : "remaining_steps",
      scalingPolicy: (["avg_load", "max_load"] as const)[random.below(2)],
      scaleUpThreshold: isRatio ? [0.5, 0.85][random.below(2)] : [2, 5, 10][random.below(3)],
      scaleDownThreshold: isRatio ? [0.1, 0.3][random.below(2)] : [15, 30][random.below(2)],
      minInstances,
      maxInstances: minInstances + random.below(8),
    };
    const infos = randomInfos(random, 1 + random.below(8));
    const expected = pageChange(infos, options);
    assert.equal(change(infos, options), expected, JSON.stringify({ options, infos }));
    seen.add(expected);
  }
  for (const number of [-2, -1, 0, 1, 2, 3]) assert.ok(seen.has(number), `no case of ${number}`);
});

/** 100 blocks, of which 1 is watermark. */
function loaded(running: number, usedBlocks: number): InstanceInfo {
  return idleInfo("a", { runningRequests: running, usedBlocks, freeBlocks: 100 - usedBlocks });
}

Deno.test("scaling: as many instances as bring the pooled load back under the threshold", () => {
  // 30 requests want 300 blocks for 10 steps; 9 + 99 n are there.
  assert.equal(change([loaded(30, 90)]), 3);
  assert.equal(change([loaded(30, 90)], { maxInstances: 3 }), 2);
  assert.equal(change([loaded(30, 90)], { maxInstances: 1 }), 0);
});

Deno.test("scaling: one instance over the threshold is for max_load, not for avg_load", () => {
  const infos = [loaded(30, 90), idleInfo("b"), idleInfo("c"), idleInfo("d"), idleInfo("e")];
  assert.equal(change(infos, { scaleDownThreshold: 100 }), 0);
  assert.equal(change(infos, { scalingPolicy: "max_load" }), 1);
});

Deno.test("scaling: an idle cluster shrinks to its minimum, one by one", () => {
  const idle = ["a", "b", "c"].map((id) => idleInfo(id));
  for (const scalingPolicy of ["avg_load", "max_load"] as const) {
    assert.equal(change(idle, { scalingPolicy }), -1);
    assert.equal(change(idle, { scalingPolicy, minInstances: 3 }), 0);
    assert.equal(change(idle.slice(0, 1), { scalingPolicy }), 0);
  }
});

Deno.test("scaling: limits come before loads", () => {
  assert.equal(change([], { minInstances: 2 }), 2);
  assert.equal(change([loaded(30, 90)], { minInstances: 2 }), 1);
  const idle = ["a", "b", "c"].map((id) => idleInfo(id));
  assert.equal(change(idle, { maxInstances: 1 }), -2);
});

Deno.test("scaling: by freeness, with headroom in the pool", () => {
  const options = { loadMetric: "virtual_usage", maxInstances: 8 } as const;
  const normal = idleInfo("a", { runningRequests: 4, usedBlocks: 40, freeBlocks: 60 });
  assert.equal(change([normal], options), 0);
  assert.equal(change([{ ...normal, runningHighPriorityRequests: 1 }], options), 1);
});
