import type { LoadState } from "../load/load_state.ts";

/** Which load of a cluster is compared with the thresholds. */
export interface ScalingPolicy {
  /** @param loadOf load of a state, for scaling */
  loadToAdd(states: readonly LoadState[], loadOf: (state: LoadState) => number): number;
  /** The load that says whether the last instance can go. */
  loadToRemove(states: readonly LoadState[], loadOf: (state: LoadState) => number): number;
}
