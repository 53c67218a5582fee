import type { Priority } from "../../../core/protocol/generate.ts";
import type { LoadMetric } from "../policy.ts";
import type { LoadState, PriorityHeadroom } from "../load_state.ts";

/** A request as the virtual usage of its instance sees it. */
export type UsageRequest =
  | { readonly kind: "running"; readonly priority: Priority; readonly physicalBlocks: number }
  | { readonly kind: "waiting"; readonly isHeadOfLine: boolean; readonly demandBlocks: number }
  /** Stands on a draining instance, so that all other requests move away. */
  | { readonly kind: "fake" };

/**
 * Virtual usage of one request in blocks (OSDI'24, section 4.4, algorithm 1).
 * @param headroom shared by the running requests of each priority
 * @param running number of running requests by priority, the request itself included if it runs
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
 * Decode steps for which the virtually free blocks last: (M - sum of V) / B, with M all blocks, V the
 * virtual usage of each request and B the running requests. Negative if the virtual usage exceeds the
 * pool. If only waiting requests are there, B is 1, for the request at the head of the queue; without
 * requests the result is `Infinity`.
 */
export function freeness(state: LoadState): number {
  const { totalBlocks, runningRequests, waitingRequests } = state;
  return ratio(totalBlocks - virtualUsageBlocks(state), runningRequests || waitingRequests && 1);
}

/** Minus the freeness, so that it grows with pressure, as every load does. */
export const virtualUsage: LoadMetric = {
  /** Requests on their way count as running. Otherwise a whole burst would go to one instance. */
  dispatch(state) {
    const { pendingRequests, pendingBlocks } = state;
    if (pendingRequests === 0) return -freeness(state);
    const blocks = state.totalBlocks - virtualUsageBlocks(state) - pendingBlocks;
    return -ratio(blocks, state.runningRequests + pendingRequests);
  },
  /**
   * Minus the freeness after the request has come. The freeness is negative where the request does not
   * fit. A high-priority request also adds its headroom, unless another one there has done so already.
   * For a request of normal priority the whole queue counts, since all of it runs before the request:
   * if only the head counted, requests would pile up behind the smallest head. A high-priority request
   * runs before the queue.
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
   * A high-priority request goes to an instance that computes no prompt and has none waiting, if there
   * is one. Most of its time to the first token is the step that runs when it arrives, and a prompt
   * takes as long as tens of decode steps.
   */
  ahead({ prefillBlocks, allWaitingBlocks, pendingBlocks }, { priority }) {
    return priority === "high" ? prefillBlocks + allWaitingBlocks + pendingBlocks : 0;
  },
  /**
   * Counts the whole queues. If scaling counted only their heads, as migration does, the cluster would
   * grow one instance at a time while a burst waits.
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
