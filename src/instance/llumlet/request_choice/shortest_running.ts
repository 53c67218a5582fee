import { bestVictim } from "./best_victim.ts";
import type { RequestChoice } from "./policy.ts";

/** SR: the shortest running request, which is the cheapest to move. */
export const shortestRunning: RequestChoice = ({ running }) =>
  bestVictim(running, ({ lengthTokens }) => lengthTokens);
