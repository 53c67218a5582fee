import { bestVictim } from "./best_victim.ts";
import { firstComeWaitingShortestRunning } from "./first_come_waiting_shortest_running.ts";
import type { RequestChoice, RunningRequest, WaitingRequest } from "./policy.ts";

/**
 * FIT: what the destination has room for, and nothing but what the order aims at. Without an aim:
 * where not each running request can get one more block, the shortest of them leaves before one is
 * preempted. While the head of the queue does not fit here: the first waiting request that fits there
 * and is older than the head of the queue there, or the one that the order names; else the running
 * one that makes the room for the head, the smallest that does it alone, or the largest that leaves.
 * Otherwise the shortest running request. Where the room is not known it is FCWSR.
 */
export const fitting: RequestChoice = (queues, { room, aim, requestId } = {}) => {
  if (room === undefined) return firstComeWaitingShortestRunning(queues);
  const { waiting, availableBlocks } = queues;
  const { blocks: roomBlocks, firstArrivalMs } = room;
  const running = queues.running.filter(({ blocks }) => blocks <= roomBlocks);
  const missingBlocks = waiting.length === 0 ? 0 : waiting[0].blocks - availableBlocks;
  const isStuck = missingBlocks > 0;
  const numRunning = queues.running.length;
  const isShort = numRunning > 1 && availableBlocks < numRunning && running.length > 0;
  if (aim === "shortest" || (aim === undefined && (!isStuck || isShort))) {
    return bestVictim(running, ({ lengthTokens }) => lengthTokens);
  }
  if (!isStuck) return [];
  if (aim !== "room") {
    const suits = (request: WaitingRequest) =>
      requestId === undefined
        ? firstArrivalMs === null || request.arrivalMs < firstArrivalMs
        : request.requestId === requestId;
    const first = waiting.find((request) => request.blocks <= roomBlocks && suits(request));
    if (first) return [first.requestId];
  }
  if (aim === "waiting") return [];
  return bestVictim(running, (request) => costOfRoom(request, missingBlocks));
};

/** More than there are blocks. */
const NOT_ENOUGH = 2 ** 32;

function costOfRoom({ blocks }: RunningRequest, missingBlocks: number): number {
  return blocks >= missingBlocks ? blocks : NOT_ENOUGH - blocks;
}
