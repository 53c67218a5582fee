import type { Priority } from "../../core/protocol/generate.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";

/** The plain numbers that load metrics read, for one instance or for several pooled together. */
export interface LoadState {
  readonly totalBlocks: number;
  readonly freeBlocks: number;
  readonly usedBlocks: number;
  readonly watermarkBlocks: number;
  readonly runningRequests: number;
  readonly runningHighPriorityRequests: number;
  readonly waitingRequests: number;
  readonly firstWaitingBlocks: number;
  readonly allWaitingBlocks: number;
  readonly prefillBlocks: number;
  /** Blocks of virtual usage on top of the physical: the headroom of every priority that runs. */
  readonly headroomBlocks: number;
  /** Requests dispatched to it that it has not reported yet; only the dispatch load counts them. */
  readonly pendingRequests: number;
  readonly pendingBlocks: number;
  /** Counts as infinitely loaded: all its requests move away, and none comes. */
  readonly isDraining: boolean;
}

/** The fields of an instance's report that its load depends on. */
export type LoadInfo = Pick<
  InstanceInfo,
  | "totalBlocks"
  | "freeBlocks"
  | "usedBlocks"
  | "watermarkBlocks"
  | "runningRequests"
  | "runningHighPriorityRequests"
  | "waitingRequests"
  | "firstWaitingBlocks"
  | "allWaitingBlocks"
  | "prefillBlocks"
>;

/** Stands in for the first report of an instance: idle, all blocks free. */
export function idleLoadInfo(totalBlocks: number): LoadInfo {
  return {
    totalBlocks,
    freeBlocks: totalBlocks,
    usedBlocks: 0,
    watermarkBlocks: 0,
    runningRequests: 0,
    runningHighPriorityRequests: 0,
    waitingRequests: 0,
    firstWaitingBlocks: 0,
    allWaitingBlocks: 0,
    prefillBlocks: 0,
  };
}

/** Blocks that the running requests of each priority claim together, beyond the blocks they have. */
export type PriorityHeadroom = Readonly<Record<Priority, number>>;

/**
 * Share of the pool that the requests of an instance may take while one of them has high priority:
 * 1600 of 13,616 tokens, the instances of the paper (LLaMA-7B on an A10). Its authors found that this
 * keeps decoding near its ideal speed (OSDI'24, section 6.4).
 */
const HIGH_PRIORITY_SHARE = 1600 / 13_616;

/** @param highBlocks `--priority-headroom-blocks`; null derives it from the size of the instance */
export function priorityHeadroom(totalBlocks: number, highBlocks: number | null): PriorityHeadroom {
  return { high: highBlocks ?? Math.floor(totalBlocks * (1 - HIGH_PRIORITY_SHARE)), normal: 0 };
}

export interface LoadStateOptions {
  readonly priorityHeadroomBlocks?: number | null;
  readonly isDraining?: boolean;
  readonly pendingRequests?: number;
  /** How many of `pendingRequests` have high priority, and bring its headroom with them. */
  readonly pendingHighPriorityRequests?: number;
  readonly pendingBlocks?: number;
}

/** Headroom that one more high-priority request would add: 0 if the instance has one already. */
export function comingHeadroomBlocks(info: LoadInfo, options: LoadStateOptions = {}): number {
  const { priorityHeadroomBlocks = null, pendingHighPriorityRequests = 0 } = options;
  if (info.runningHighPriorityRequests + pendingHighPriorityRequests > 0) return 0;
  return priorityHeadroom(info.totalBlocks, priorityHeadroomBlocks).high;
}

export function loadStateOf(info: LoadInfo, options: LoadStateOptions = {}): LoadState {
  const { priorityHeadroomBlocks = null, isDraining = false } = options;
  const headroom = priorityHeadroom(info.totalBlocks, priorityHeadroomBlocks);
  const { pendingRequests = 0, pendingHighPriorityRequests = 0, pendingBlocks = 0 } = options;
  const high = info.runningHighPriorityRequests + pendingHighPriorityRequests;
  return {
    totalBlocks: info.totalBlocks,
    freeBlocks: info.freeBlocks,
    usedBlocks: info.usedBlocks,
    watermarkBlocks: info.watermarkBlocks,
    runningRequests: info.runningRequests,
    runningHighPriorityRequests: info.runningHighPriorityRequests,
    waitingRequests: info.waitingRequests,
    firstWaitingBlocks: info.firstWaitingBlocks,
    allWaitingBlocks: info.allWaitingBlocks,
    prefillBlocks: info.prefillBlocks,
    headroomBlocks: (high > 0 ? headroom.high : 0) +
      (info.runningRequests + pendingRequests > high ? headroom.normal : 0),
    pendingRequests,
    pendingBlocks,
    isDraining,
  };
}

/** An instance without requests that is as large as `like`. */
export function emptyStateLike(like: LoadState): LoadState {
  return {
    totalBlocks: like.totalBlocks,
    freeBlocks: like.totalBlocks,
    usedBlocks: 0,
    watermarkBlocks: like.watermarkBlocks,
    runningRequests: 0,
    runningHighPriorityRequests: 0,
    waitingRequests: 0,
    firstWaitingBlocks: 0,
    allWaitingBlocks: 0,
    prefillBlocks: 0,
    headroomBlocks: 0,
    pendingRequests: 0,
    pendingBlocks: 0,
    isDraining: false,
  };
}

/** Several instances as if they were one: every number is summed; it drains if all of them do. */
export function poolOf(states: readonly LoadState[]): LoadState {
  const sum = (field: Exclude<keyof LoadState, "isDraining">) =>
    states.reduce((total, state) => total + state[field], 0);
  return {
    totalBlocks: sum("totalBlocks"),
    freeBlocks: sum("freeBlocks"),
    usedBlocks: sum("usedBlocks"),
    watermarkBlocks: sum("watermarkBlocks"),
    runningRequests: sum("runningRequests"),
    runningHighPriorityRequests: sum("runningHighPriorityRequests"),
    waitingRequests: sum("waitingRequests"),
    firstWaitingBlocks: sum("firstWaitingBlocks"),
    allWaitingBlocks: sum("allWaitingBlocks"),
    prefillBlocks: sum("prefillBlocks"),
    headroomBlocks: sum("headroomBlocks"),
    pendingRequests: sum("pendingRequests"),
    pendingBlocks: sum("pendingBlocks"),
    isDraining: states.length > 0 && states.every((state) => state.isDraining),
  };
}
