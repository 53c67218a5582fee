import { poolOf } from "../../load/load_state.ts";
import type { ScalingPolicy } from "../policy.ts";

/** The load of the pooled cluster. For a removal: with all requests, without the last instance's blocks. */
export const averageLoad: ScalingPolicy = {
  loadToAdd: (states, loadOf) => loadOf(poolOf(states)),
  loadToRemove(states, loadOf) {
    const pool = poolOf(states);
    const last = states[states.length - 1];
    return loadOf({
      ...pool,
      totalBlocks: pool.totalBlocks - last.totalBlocks,
      freeBlocks: pool.freeBlocks - last.totalBlocks,
      watermarkBlocks: pool.watermarkBlocks - last.watermarkBlocks,
    });
  },
};
