import type { LoadMetricName } from "../../core/options.ts";
import type { LoadState } from "./load_state.ts";
import { remainingSteps } from "./remaining_steps.ts";
import { usageRatio } from "./usage_ratio.ts";
import { virtualUsage } from "./virtual_usage.ts";

/** Turns the state of an instance into its load, which grows with pressure. */
export interface LoadMetric {
  /** For dispatch and scaling: all that waits counts. */
  dispatch(state: LoadState): number;
  /** For migration: what the running requests have, and the first that waits where it says so. */
  migration(state: LoadState, enableDefrag: boolean): number;
}

/** One line per metric. */
const metrics: Readonly<Record<LoadMetricName, LoadMetric>> = {
  remaining_steps: remainingSteps,
  usage_ratio: usageRatio,
  virtual_usage: virtualUsage,
};

/** `Infinity` on an instance that drains, whatever the metric; `-Infinity` on an idle one by some. */
export function dispatchLoad(metric: LoadMetricName, state: LoadState): number {
  return state.isDraining ? Infinity : metrics[metric].dispatch(state);
}

/** As {@linkcode dispatchLoad}, for migration. */
export function migrationLoad(
  metric: LoadMetricName,
  state: LoadState,
  enableDefrag: boolean,
): number {
  return state.isDraining ? Infinity : metrics[metric].migration(state, enableDefrag);
}
