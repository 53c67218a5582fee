import type { LoadState } from "../../load/load_state.ts";
import type { ScalingPolicy } from "../policy.ts";

/** The largest load of a single instance, the last one included: its requests move to the others. */
export const largestLoad: ScalingPolicy = { loadToAdd: largest, loadToRemove: largest };

function largest(states: readonly LoadState[], loadOf: (state: LoadState) => number): number {
  return Math.max(...states.map(loadOf));
}
