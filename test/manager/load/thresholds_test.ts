import assert from "node:assert/strict";
import type { LoadMetricName } from "../../../src/core/options.ts";
import { idleLoadInfo, type LoadState, loadStateOf } from "../../../src/manager/load/load_state.ts";
import {
  defaultThresholds,
  scalingThresholdProblem,
  thresholdLoad,
  thresholdProblem,
} from "../../../src/manager/load/thresholds.ts";
import { scalingChange } from "../../../src/manager/scaling/scaling.ts";

Deno.test("thresholds: steps are compared negated, fractions as they are", () => {
  assert.equal(thresholdLoad("remaining_steps", 3), -3);
  assert.equal(thresholdLoad("virtual_usage", 3), -3);
  assert.equal(thresholdLoad("usage_ratio", 0.85), 0.85);
});

Deno.test("thresholds: unset ones depend on the metric, and all are in its range", () => {
  const steps = { migrateOutThreshold: 3, scaleUpThreshold: 10, scaleDownThreshold: 60 };
  assert.deepEqual(defaultThresholds("remaining_steps"), steps);
  assert.deepEqual(defaultThresholds("virtual_usage"), steps);
  assert.deepEqual(defaultThresholds("usage_ratio"), {
    migrateOutThreshold: 0.85,
    scaleUpThreshold: 0.85,
    scaleDownThreshold: 0.3,
  });
  for (const metric of ["remaining_steps", "virtual_usage", "usage_ratio"] as const) {
    for (const threshold of Object.values(defaultThresholds(metric))) {
      assert.equal(thresholdProblem(metric, threshold), null);
    }
    assert.equal(scalingThresholdProblem(metric, defaultThresholds(metric)), null);
  }
});

Deno.test("thresholds: those for scaling contradict where a load is over the one and under the other", () => {
  const problem = (metric: LoadMetricName, up: number, down: number) =>
    scalingThresholdProblem(metric, { scaleUpThreshold: up, scaleDownThreshold: down });
  for (const metric of ["remaining_steps", "virtual_usage"] as const) {
    assert.equal(problem(metric, 10, 11), null);
    assert.match(problem(metric, 10, 10)!, /contradict.*fewer than 10 steps remain/);
    assert.match(problem(metric, 60, 10)!, /--scale-down-threshold must be more than/);
  }
  assert.equal(problem("usage_ratio", 0.5, 0.49), null);
  assert.match(problem("usage_ratio", 0.5, 0.5)!, /more than 0.5 of the blocks are used/);
  assert.match(problem("usage_ratio", 0.3, 0.85)!, /--scale-down-threshold must be less than/);
});

Deno.test("thresholds: where they contradict, an instance comes and goes at the same requests", () => {
  // 2 * 100 blocks for 10 requests of one block: 19 steps remain, on one instance 9.
  const busy = (usedBlocks: number): LoadState => ({
    ...loadStateOf({ ...idleLoadInfo(100), freeBlocks: 100 - usedBlocks, usedBlocks }),
    runningRequests: usedBlocks,
  });
  const change = (states: readonly LoadState[], scaleDownThreshold: number) =>
    scalingChange(states, {
      loadMetric: "remaining_steps",
      scalingPolicy: "avg_load",
      scaleUpThreshold: 10,
      scaleDownThreshold,
      minInstances: 1,
      maxInstances: 2,
    });
  assert.deepEqual([change([busy(5), busy(5)], 5), change([busy(10)], 5)], [-1, 1]);
  assert.deepEqual([change([busy(5), busy(5)], 11), change([busy(10)], 11)], [0, 1]);
});

Deno.test("thresholds: what is out of range names the metric", () => {
  for (const bad of [0, -3, NaN]) {
    assert.match(
      thresholdProblem("remaining_steps", bad)!,
      /remaining_steps it must be a number of steps/,
    );
  }
  for (const bad of [0, -0.1, 1.01, 3, NaN]) {
    assert.match(
      thresholdProblem("usage_ratio", bad)!,
      /usage_ratio it must be a fraction of the blocks/,
    );
  }
  for (const good of [0.01, 1]) assert.equal(thresholdProblem("usage_ratio", good), null);
});
