import type { ComingRequest, LoadMetric } from "./policy.ts";
import type { LoadMetricName } from "../../core/options.ts";
import type { LoadState } from "./load_state.ts";
import { remainingSteps } from "./metrics/remaining_steps.ts";
import { usageRatio } from "./metrics/usage_ratio.ts";
import { virtualUsage } from "./metrics/virtual_usage.ts";

/** One line per metric. */
const metrics: Readonly<Record<LoadMetricName, LoadMetric>> = {
  remaining_steps: remainingSteps,
  usage_ratio: usageRatio,
  virtual_usage: virtualUsage,
};

/** `Infinity` for a draining instance; some metrics give `-Infinity` for an idle one. */
export function dispatchLoad(metric: LoadMetricName, state: LoadState): number {
  return state.isDraining ? Infinity : metrics[metric].dispatch(state);
}

/** {@linkcode dispatchLoad} with one more request, if the metric can tell; else without it. */
export function dispatchLoadWith(
  metric: LoadMetricName,
  state: LoadState,
  request: ComingRequest,
): number {
  const { dispatchWith } = metrics[metric];
  if (dispatchWith === undefined || state.isDraining) return dispatchLoad(metric, state);
  return dispatchWith(state, request);
}

/** Blocks of prompts to compute before one more request, if the metric compares those first; else 0. */
export function aheadBlocks(
  metric: LoadMetricName,
  state: LoadState,
  request: ComingRequest,
): number {
  return metrics[metric].ahead?.(state, request) ?? 0;
}

/** The metric's own load for scaling, if it has one; else {@linkcode dispatchLoad}. */
export function scalingLoad(metric: LoadMetricName, state: LoadState): number {
  if (state.isDraining) return Infinity;
  return metrics[metric].scaling?.(state) ?? dispatchLoad(metric, state);
}

/** Whether the dispatch load depends on the request. */
export function tellsRequestsApart(metric: LoadMetricName): boolean {
  return metrics[metric].dispatchWith !== undefined;
}

/** Load by which migration pairs instances; `Infinity` for a draining instance. */
export function migrationLoad(
  metric: LoadMetricName,
  state: LoadState,
  enableDefrag: boolean,
): number {
  return state.isDraining ? Infinity : metrics[metric].migration(state, enableDefrag);
}
