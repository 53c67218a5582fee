import type { Priority } from "../../core/protocol/generate.ts";
import type { LoadState } from "./load_state.ts";

/** Turns the state of an instance into its load, which grows with pressure. */
export interface LoadMetric {
  /** For dispatch, and for scaling where that is not another: all that waits counts. */
  dispatch(state: LoadState): number;
  /** As `dispatch`, with the request there; by a metric that tells requests apart. */
  dispatchWith?(state: LoadState, request: ComingRequest): number;
  /** See {@linkcode aheadBlocks}. */
  ahead?(state: LoadState, request: ComingRequest): number;
  /** For scaling: all that waits is to run soon. */
  scaling?(state: LoadState): number;
  /** For migration: what the running requests have, and the first that waits where it says so. */
  migration(state: LoadState, enableDefrag: boolean): number;
}

/** A request that may come to an instance. */
export interface ComingRequest {
  readonly priority: Priority;
  /** Of its prompt; fractional. */
  readonly blocks: number;
  /** What it adds to the headroom there: that of its priority, unless requests there have it already. */
  readonly headroomBlocks: number;
}
