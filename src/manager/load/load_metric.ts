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

/** `Infinity` on an instance that drains, whatever the metric; `-Infinity` on an idle one by some. */
export function dispatchLoad(metric: LoadMetricName, state: LoadState): number {
  return state.isDraining ? Infinity : metrics[metric].dispatch(state);
}

/** {@linkcode dispatchLoad} as it would be with one more request, by metrics that say so. */
export function dispatchLoadWith(
  metric: LoadMetricName,
  state: LoadState,
  request: ComingRequest,
): number {
  const { dispatchWith } = metrics[metric];
  if (dispatchWith === undefined || state.isDraining) return dispatchLoad(metric, state);
  return dispatchWith(state, request);
}

/**
 * Blocks of prompts that an instance is to compute before one more request, where the metric lets
 * that come before loads; else 0.
 */
export function aheadBlocks(
  metric: LoadMetricName,
  state: LoadState,
  request: ComingRequest,
): number {
  return metrics[metric].ahead?.(state, request) ?? 0;
}

/** {@linkcode dispatchLoad}, or what a metric has for scaling instead. */
export function scalingLoad(metric: LoadMetricName, state: LoadState): number {
  if (state.isDraining) return Infinity;
  return metrics[metric].scaling?.(state) ?? dispatchLoad(metric, state);
}

/** Whether loads of a metric differ from request to request. */
export function tellsRequestsApart(metric: LoadMetricName): boolean {
  return metrics[metric].dispatchWith !== undefined;
}

/** As {@linkcode dispatchLoad}, for migration. */
export function migrationLoad(
  metric: LoadMetricName,
  state: LoadState,
  enableDefrag: boolean,
): number {
  return state.isDraining ? Infinity : metrics[metric].migration(state, enableDefrag);
}
