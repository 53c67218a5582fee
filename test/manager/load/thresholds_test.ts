import assert from "node:assert/strict";
import {
  defaultThresholds,
  thresholdLoad,
  thresholdProblem,
} from "../../../src/manager/load/thresholds.ts";

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
  }
});

Deno.test("thresholds: what is out of range names the metric", () => {
  for (const bad of [0, -3, NaN]) {
    assert.match(
      thresholdProblem("remaining_steps", bad)!,
      /remaining_steps it is a number of steps/,
    );
  }
  for (const bad of [0, -0.1, 1.01, 3, NaN]) {
    assert.match(
      thresholdProblem("usage_ratio", bad)!,
      /usage_ratio it is a fraction of the blocks/,
    );
  }
  for (const good of [0.01, 1]) assert.equal(thresholdProblem("usage_ratio", good), null);
});
