import type { RequestChoice } from "./policy.ts";

/** FCW: the head of the queue, once the scheduler has found that it does not fit. */
export const firstComeWaiting: RequestChoice = ({ waiting }) => {
  const head = waiting.at(0);
  return head?.wasTried ? [head.requestId] : [];
};
