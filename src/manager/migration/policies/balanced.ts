import type { LoadState } from "../../load/load_state.ts";
import { isOverloaded } from "./overloaded.ts";
import type { LoadedCandidate, PairMigrationPolicy } from "../policy.ts";

/**
 * Migration that makes loads more alike: with the last running request of the source moved, the
 * destination stays under the threshold and the source remains the more loaded of the two, by less
 * than before. An idle destination needs no comparison, and a source that drains has no choice.
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

/** Requests that would move: the last running one, if there is any. */
function movedOf({ state }: LoadedCandidate): number {
  return Math.min(1, state.runningRequests);
}

/** A state with more (or fewer) running requests of normal priority, which leave before others. */
function withRunning(state: LoadState, requests: number, blocks: number): LoadState {
  return {
    ...state,
    runningRequests: state.runningRequests + requests,
    usedBlocks: state.usedBlocks + blocks,
    freeBlocks: state.freeBlocks - blocks,
  };
}
