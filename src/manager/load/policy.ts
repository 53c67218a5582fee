import type { Priority } from "../../core/protocol/generate.ts";
import type { LoadState } from "./load_state.ts";

/** Turns the state of an instance into its load, a number that grows with pressure. */
export interface LoadMetric {
  /** For dispatch, and for scaling unless `scaling` is there. Counts all waiting requests. */
  dispatch(state: LoadState): number;
  /** As `dispatch`, with one more request. Absent: the load does not depend on the request. */
  dispatchWith?(state: LoadState, request: ComingRequest): number;
  /** Blocks of prompts before the request. Absent: only loads are compared. */
  ahead?(state: LoadState, request: ComingRequest): number;
  /** For scaling: all waiting requests count, since they should run soon. */
  scaling?(state: LoadState): number;
  /** For migration: counts the running requests, and with `enableDefrag` the first waiting one. */
  migration(state: LoadState, enableDefrag: boolean): number;
}

/** A request that may be dispatched to an instance. */
export interface ComingRequest {
  readonly priority: Priority;
  /** Blocks of its prompt; fractional. */
  readonly blocks: number;
  /** Headroom blocks that it adds: those of its priority, unless the instance counts them already. */
  readonly headroomBlocks: number;
}
