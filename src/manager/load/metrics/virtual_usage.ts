import type { Priority } from "../../../core/protocol/generate.ts";
import type { LoadMetric } from "../policy.ts";
import type { LoadState, PriorityHeadroom } from "../load_state.ts";

/** A request as the virtual usage of its instance sees it. */
export type UsageRequest =
  | { readonly kind: "running"; readonly priority: Priority; readonly physicalBlocks: number }
  | { readonly kind: "waiting"; readonly isHeadOfLine: boolean; readonly demandBlocks: number }
  /** On an instance that drains. */
  | { readonly kind: "fake" };

/**
 * Virtual usage of one request in blocks (OSDI'24, section 4.4, algorithm 1).
 * @param headroom that the running requests of a priority share
 * @param running requests by priority; at least 1 of the request's own when it runs
 */
export function requestUsageBlocks(
  request: UsageRequest,
  headroom: PriorityHeadroom,
  running: Readonly<Record<Priority, number>>,
): number {
  switch (request.kind) {
    case "running": {
      const { physicalBlocks, priority } = request;
      return physicalBlocks + headroom[priority] / running[priority];
    }
    case "waiting":
      return request.isHeadOfLine ? request.demandBlocks : 0;
    case "fake":
      return Infinity;
  }
}

/** Sum of the virtual usages of all requests of an instance. */
export function virtualUsageBlocks(state: LoadState): number {
  if (state.isDraining) return Infinity;
  return state.usedBlocks + state.headroomBlocks + state.firstWaitingBlocks;
}

/**
 * Decode steps for which the blocks that are virtually free last: (M - sum of V) / B, with M all
 * blocks and B the running requests. Negative when the virtual usage exceeds the pool. Where nothing
 * runs, the request at the head of the queue is the one that will; without any it is `Infinity`.
 */
export function freeness(state: LoadState): number {
  const { totalBlocks, runningRequests, waitingRequests } = state;
  return ratio(totalBlocks - virtualUsageBlocks(state), runningRequests || waitingRequests && 1);
}

/** Minus the freeness, so that it grows with pressure as every load does. */
export const virtualUsage: LoadMetric = {
  /** What is on its way counts as running: else a burst would go where the first one went. */
  dispatch(state) {
    const { pendingRequests, pendingBlocks } = state;
    if (pendingRequests === 0) return -freeness(state);
    const blocks = state.totalBlocks - virtualUsageBlocks(state) - pendingBlocks;
    return -ratio(blocks, state.runningRequests + pendingRequests);
  },
  /**
   * The freest instance after the request has come: where it does not fit freeness is negative, and
   * one of high priority costs an instance its headroom unless another there has it already. All
   * that waits comes before one of normal priority: by the heads of the queues alone, requests pile
   * up behind the smallest head. One of high priority is before all.
   */
  dispatchWith(state, { priority, blocks, headroomBlocks }) {
    const [waitingBlocks, waitingRequests] = priority === "high"
      ? [state.firstWaitingBlocks, 0]
      : [state.allWaitingBlocks, state.waitingRequests];
    const free = state.totalBlocks - state.usedBlocks - state.headroomBlocks - waitingBlocks -
      state.pendingBlocks;
    const requests = state.runningRequests + waitingRequests + state.pendingRequests + 1;
    return -ratio(free - blocks - headroomBlocks, requests);
  },
  /**
   * A request of high priority goes first where no prompt is computed or waits, for the step that
   * runs when it comes is the longest part of its time to the first token: a prompt takes as long as
   * tens of decode steps.
   */
  ahead({ prefillBlocks, allWaitingBlocks, pendingBlocks }, { priority }) {
    return priority === "high" ? prefillBlocks + allWaitingBlocks + pendingBlocks : 0;
  },
  /**
   * Of requests that wait only the heads of the queues count elsewhere; a cluster that counted no
   * more would grow by one instance after the other while a burst waits.
   */
  scaling({ totalBlocks, usedBlocks, headroomBlocks, allWaitingBlocks, ...state }) {
    const free = totalBlocks - usedBlocks - headroomBlocks - allWaitingBlocks;
    return -ratio(free, state.runningRequests + state.waitingRequests);
  },
  migration(state) {
    return -freeness(state);
  },
};

function ratio(blocks: number, requests: number): number {
  if (blocks === -Infinity) return blocks;
  return requests === 0 ? Infinity : blocks / requests;
}
