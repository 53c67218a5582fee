import type { ChoiceTerms, RequestChoice, RequestQueues } from "./policy.ts";
import type { RequestId } from "../../../core/protocol/generate.ts";
import type { RequestMigrationPolicy } from "../../../core/protocol/migration.ts";
import { firstComeWaiting } from "./first_come_waiting.ts";
import { firstComeWaitingShortestRunning } from "./first_come_waiting_shortest_running.ts";
import { fitting } from "./fitting.ts";
import { lastComeRunning } from "./last_come_running.ts";
import { longestRunning } from "./longest_running.ts";
import { shortestRunning } from "./shortest_running.ts";

/** One line per policy. */
const policies: Readonly<Record<RequestMigrationPolicy, RequestChoice>> = {
  LCR: lastComeRunning,
  SR: shortestRunning,
  LR: longestRunning,
  FCW: firstComeWaiting,
  FCWSR: firstComeWaitingShortestRunning,
  FIT: fitting,
};

/** Which requests leave an instance. */
export interface ChosenRequests {
  readonly requestIds: readonly RequestId[];
  /** They reached their expected steps: each leaves at once, in one stage that stops it. */
  readonly mustLeave: boolean;
}

/**
 * Which requests leave (behaviour page, section 3). Requests that reached their expected steps come
 * before any policy, all of them and in their order.
 */
export function chooseRequests(
  queues: RequestQueues,
  policy: RequestMigrationPolicy,
  terms?: ChoiceTerms,
): ChosenRequests {
  const running = queues.running.filter((request) => request.isDecoding && !request.isMigrating);
  const waiting = queues.waiting.filter((request) => !request.isMigrating);
  const done = running.filter((request) => request.hasReachedExpectedSteps);
  if (done.length > 0) {
    return { requestIds: done.map(({ requestId }) => requestId), mustLeave: true };
  }
  const requestIds = policies[policy]({ ...queues, running, waiting }, terms);
  return { requestIds, mustLeave: false };
}
