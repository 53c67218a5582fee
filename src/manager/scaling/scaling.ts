import type { ScalingPolicy } from "./policy.ts";
import type { LoadMetricName } from "../../core/options.ts";
import { scalingLoad } from "../load/load_metric.ts";
import { emptyStateLike, type LoadState, poolOf } from "../load/load_state.ts";
import { thresholdLoad } from "../load/thresholds.ts";
import { averageLoad } from "./policies/avg_load.ts";
import { largestLoad } from "./policies/max_load.ts";

export type ScalingPolicyName = "max_load" | "avg_load";

export interface ScalingPolicyOptions {
  readonly loadMetric: LoadMetricName;
  readonly scalingPolicy: ScalingPolicyName;
  /** As the user writes it: positive (`src/manager/load/thresholds.ts`). */
  readonly scaleUpThreshold: number;
  readonly scaleDownThreshold: number;
  /** At least 1. */
  readonly minInstances: number;
  readonly maxInstances: number;
}

/** One line per policy. */
const policies: Readonly<Record<ScalingPolicyName, ScalingPolicy>> = {
  avg_load: averageLoad,
  max_load: largestLoad,
};

/**
 * By how many instances the cluster should change now (src/manager/README.md, "Scaling"): positive to
 * add, negative to remove.
 *
 * Adds as many empty instances, each as large as the last one, as bring the pooled load back under the
 * scale-up threshold, and at least one. Removes one at a time. Limits come before loads.
 * @param states of the serving instances that do not drain, in the order in which they came
 */
export function scalingChange(states: readonly LoadState[], options: ScalingPolicyOptions): number {
  const { loadMetric, minInstances, maxInstances } = options;
  const count = states.length;
  if (count < minInstances) return minInstances - count;
  if (count > maxInstances) return maxInstances - count;
  const policy = policies[options.scalingPolicy];
  const loadOf = (state: LoadState) => scalingLoad(loadMetric, state);

  const upLoad = thresholdLoad(loadMetric, options.scaleUpThreshold);
  if (policy.loadToAdd(states, loadOf) > upLoad) {
    const pool = [...states];
    const empty = emptyStateLike(states[count - 1]);
    do pool.push(empty); while (pool.length < maxInstances && loadOf(poolOf(pool)) > upLoad);
    return Math.min(pool.length, maxInstances) - count;
  }
  const downLoad = thresholdLoad(loadMetric, options.scaleDownThreshold);
  const canRemove = count > minInstances && policy.loadToRemove(states, loadOf) < downLoad;
  return canRemove ? -1 : 0;
}
