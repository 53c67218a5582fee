import type {
  MigrateOutOrder,
  Priority,
  RequestId,
  RequestMigrationPolicy,
} from "../../../core/messages.ts";
import { firstComeWaiting } from "./first_come_waiting.ts";
import { firstComeWaitingShortestRunning } from "./first_come_waiting_shortest_running.ts";
import { fitting } from "./fitting.ts";
import { lastComeRunning } from "./last_come_running.ts";
import { longestRunning } from "./longest_running.ts";
import { shortestRunning } from "./shortest_running.ts";

/** A running request that may leave. */
export interface RunningRequest {
  readonly requestId: RequestId;
  readonly priority: Priority;
  readonly arrivalMs: number;
  /** Prompt and output. */
  readonly lengthTokens: number;
  /** That it has. */
  readonly blocks: number;
  /** Its prompt is computed: only then it counts as running here. */
  readonly isDecoding: boolean;
  /** Has run as many steps as it may here (prefill instances), and must go on elsewhere. */
  readonly hasReachedExpectedSteps: boolean;
  readonly isMigrating: boolean;
}

/** A waiting request that may leave. */
export interface WaitingRequest {
  readonly requestId: RequestId;
  /** The scheduler has tried to run it at least once, so that it waits for blocks. */
  readonly wasTried: boolean;
  readonly arrivalMs: number;
  /** That it needs. */
  readonly blocks: number;
  readonly isMigrating: boolean;
}

/** The queues of an instance, each in its order. */
export interface RequestQueues {
  readonly running: readonly RunningRequest[];
  readonly waiting: readonly WaitingRequest[];
  /** Blocks that are free for the request at the head of the queue. */
  readonly availableBlocks: number;
}

/** What an order says of its destination and its aim. */
export type ChoiceTerms = Pick<MigrateOutOrder, "room" | "aim" | "requestId">;

/** Requests to migrate, one after the other until one cannot. */
export type RequestChoice = (queues: RequestQueues, terms?: ChoiceTerms) => RequestId[];

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
