import { poolOf } from "../../load/load_state.ts";
import type { ScalingPolicy } from "../policy.ts";

/** The load of the pooled cluster; to remove one, with the requests of all on the others' blocks. */
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
