import { bestVictim } from "./best_victim.ts";
import type { RequestChoice } from "./policy.ts";

/** LR: the longest running request, which frees the most blocks. */
export const longestRunning: RequestChoice = ({ running }) =>
  bestVictim(running, ({ lengthTokens }) => -lengthTokens);
