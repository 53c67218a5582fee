import type { LoadState } from "../load/load_state.ts";

/** Which load of the cluster scaling compares with its thresholds. */
export interface ScalingPolicy {
  /**
   * The load that is compared with the scale-up threshold.
   * @param loadOf scaling load of a state
   */
  loadToAdd(states: readonly LoadState[], loadOf: (state: LoadState) => number): number;
  /** The load that is compared with the scale-down threshold, before the last instance is removed. */
  loadToRemove(states: readonly LoadState[], loadOf: (state: LoadState) => number): number;
}
