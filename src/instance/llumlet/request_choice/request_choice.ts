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

/** The requests to move away, in order. */
export interface ChosenRequests {
  readonly requestIds: readonly RequestId[];
  /** They have run their expected steps: each moves in one stage, during which it does not run. */
  readonly mustLeave: boolean;
}

/**
 * Chooses the requests that move away (see "Which request moves" in ../README.md). Requests that
 * have run their expected steps come before any policy: all of them, in their order.
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
