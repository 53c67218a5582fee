import type { RequestChoice } from "./policy.ts";

/** FCW: the head of the queue, once the scheduler has tried to admit it and found no room. */
export const firstComeWaiting: RequestChoice = ({ waiting }) => {
  const head = waiting.at(0);
  return head?.wasTried ? [head.requestId] : [];
};
