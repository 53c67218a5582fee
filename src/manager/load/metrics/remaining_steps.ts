import type { LoadMetric } from "../policy.ts";
import type { LoadState } from "../load_state.ts";

/**
 * Minus the number of decode steps for which the free blocks last if every request takes one block
 * a step (Llumnix v0, `instance_info.py`). `-Infinity` without requests.
 */
export const remainingSteps: LoadMetric = {
  dispatch(state) {
    const { runningRequests, waitingRequests, pendingRequests } = state;
    return stepsLoad(
      availableBlocks(state) - state.allWaitingBlocks - state.pendingBlocks,
      runningRequests + waitingRequests + pendingRequests,
    );
  },
  migration(state, enableDefrag) {
    if (!enableDefrag) return stepsLoad(availableBlocks(state), state.runningRequests);
    return stepsLoad(
      availableBlocks(state) - state.firstWaitingBlocks,
      state.runningRequests + Math.min(1, state.waitingRequests),
    );
  },
};

function availableBlocks({ freeBlocks, watermarkBlocks }: LoadState): number {
  return freeBlocks - watermarkBlocks;
}

function stepsLoad(blocks: number, requests: number): number {
  return requests === 0 ? -Infinity : -blocks / requests;
}
