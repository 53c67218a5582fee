import { firstComeWaiting } from "./first_come_waiting.ts";
import type { RequestChoice } from "./policy.ts";
import { shortestRunning } from "./shortest_running.ts";

/** FCWSR: the head of the queue, then the shortest running request. */
export const firstComeWaitingShortestRunning: RequestChoice = (queues) => [
  ...firstComeWaiting(queues),
  ...shortestRunning(queues),
];
