import { bestVictim } from "./best_victim.ts";
import type { RequestChoice } from "./policy.ts";

/** LCR: the running request that arrived last; of several, the last in the queue. */
export const lastComeRunning: RequestChoice = ({ running }) =>
  bestVictim(running.toReversed(), ({ arrivalMs }) => -arrivalMs);
