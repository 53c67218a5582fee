import type { LoadState } from "../../load/load_state.ts";
import { isOverloaded } from "./overloaded.ts";
import type { LoadedCandidate, PairMigrationPolicy } from "../policy.ts";

/**
 * Pairs whose loads become more alike: with the source's last running request moved, the destination
 * stays under the threshold, and the source is still the more loaded of the two, by less than before.
 * Two kinds of pairs need no comparison: with an idle destination, and with a draining source.
 */
export const balanced: PairMigrationPolicy = {
  isSource: isOverloaded,
  keeps(source, destination, { thresholdLoad, loadOf }) {
    if (source.state.isDraining || isIdle(destination)) return true;
    const blocks = source.lastRunningBlocks;
    const destinationAfter = loadOf(withRunning(destination.state, movedOf(source), blocks));
    if (!(destinationAfter < thresholdLoad)) return false;
    const sourceAfter = loadOf(withRunning(source.state, -movedOf(source), -blocks));
    const differenceAfter = sourceAfter - destinationAfter;
    return differenceAfter > 0 && differenceAfter < source.load - destination.load;
  },
};

function isIdle({ load, state }: LoadedCandidate): boolean {
  return load === -Infinity || state.runningRequests + state.waitingRequests === 0;
}

/** Number of requests that would move: the last running one, if there is one. */
function movedOf({ state }: LoadedCandidate): number {
  return Math.min(1, state.runningRequests);
}

/** The state with more (or fewer) running requests of normal priority, which move before others. */
function withRunning(state: LoadState, requests: number, blocks: number): LoadState {
  return {
    ...state,
    runningRequests: state.runningRequests + requests,
    usedBlocks: state.usedBlocks + blocks,
    freeBlocks: state.freeBlocks - blocks,
  };
}
