import type { LoadMetricName } from "../../../core/options.ts";
import type { LoadState } from "../../load/load_state.ts";
import { countsSteps } from "../../load/thresholds.ts";

/** Free blocks of an instance above its watermark. May be negative. */
export function availableBlocks({ freeBlocks, watermarkBlocks }: LoadState): number {
  return freeBlocks - watermarkBlocks;
}

/** Blocks that the request at the head of the queue needs; 0 without one. */
export function headBlocks({ firstWaitingBlocks }: LoadState): number {
  return Math.ceil(firstWaitingBlocks);
}

/** The request at the head of the queue waits because it does not fit, and not just for its turn. */
export function isStuck(state: LoadState): boolean {
  return headBlocks(state) > Math.max(0, availableBlocks(state));
}

/** Soon a running request is preempted: there is not one more block for each of them. */
export function isShort(state: LoadState): boolean {
  return state.runningRequests > 1 && availableBlocks(state) < state.runningRequests;
}

/**
 * Blocks that an instance can take without exceeding the migrate-out threshold. The blocks that its
 * running requests will use in the steps that the threshold counts are kept for them. May be negative.
 * @param threshold as the user writes it: positive
 */
export function roomBlocks(state: LoadState, metric: LoadMetricName, threshold: number): number {
  const kept = countsSteps(metric)
    ? threshold * state.runningRequests
    : (1 - threshold) * state.totalBlocks;
  return Math.floor(availableBlocks(state) - kept);
}
