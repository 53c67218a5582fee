import type { LoadMetric } from "../policy.ts";

/** The share of the blocks that requests use or wait for; above 1 if the queue is long. */
export const usageRatio: LoadMetric = {
  dispatch({ usedBlocks, allWaitingBlocks, pendingBlocks, totalBlocks }) {
    return (usedBlocks + allWaitingBlocks + pendingBlocks) / totalBlocks;
  },
  migration({ usedBlocks, firstWaitingBlocks, totalBlocks }) {
    return (usedBlocks + firstWaitingBlocks) / totalBlocks;
  },
};
