import { bestVictim } from "./best_victim.ts";
import { firstComeWaitingShortestRunning } from "./first_come_waiting_shortest_running.ts";
import type { RequestChoice, RunningRequest, WaitingRequest } from "./policy.ts";

/**
 * FIT: a request that fits at the destination, for the aim of the order. FCWSR if the order does
 * not tell the destination's room. Without an aim:
 *
 * 1. If not every running request here can get one more block, the shortest one moves, before one
 *    is preempted.
 * 2. Otherwise, if the head of the queue does not fit here: the first waiting request that fits
 *    there and is older than the head of the queue there (or the one that the order names). If
 *    there is none, a running request that makes room for the head here: the smallest that is
 *    enough, or else the largest.
 * 3. Otherwise the shortest running request.
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

/** More blocks than any pool has. */
const NOT_ENOUGH = 2 ** 32;

/** Requests that free enough blocks come first, smallest first; then the others, largest first. */
function costOfRoom({ blocks }: RunningRequest, missingBlocks: number): number {
  return blocks >= missingBlocks ? blocks : NOT_ENOUGH - blocks;
}
