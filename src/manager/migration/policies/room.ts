import type { LoadMetricName } from "../../../core/options.ts";
import type { LoadState } from "../../load/load_state.ts";
import { countsSteps } from "../../load/thresholds.ts";

/** Blocks that an instance can take now, its watermark kept. May be negative. */
export function availableBlocks({ freeBlocks, watermarkBlocks }: LoadState): number {
  return freeBlocks - watermarkBlocks;
}

/** Blocks that the request at the head of the queue needs; 0 without one. */
export function headBlocks({ firstWaitingBlocks }: LoadState): number {
  return Math.ceil(firstWaitingBlocks);
}

/** A request waits, not for its turn and not to leave: it does not fit. */
export function isStuck(state: LoadState): boolean {
  return headBlocks(state) > Math.max(0, availableBlocks(state));
}

/** Before long one that runs gets no block and is preempted: not each can get one more. */
export function isShort(state: LoadState): boolean {
  return state.runningRequests > 1 && availableBlocks(state) < state.runningRequests;
}

/**
 * Blocks that an instance can take without being over the migrate-out threshold for it: what its
 * running requests take in the steps that the threshold counts is theirs. May be negative.
 * @param threshold as written: positive
 */
export function roomBlocks(state: LoadState, metric: LoadMetricName, threshold: number): number {
  const kept = countsSteps(metric)
    ? threshold * state.runningRequests
    : (1 - threshold) * state.totalBlocks;
  return Math.floor(availableBlocks(state) - kept);
}
