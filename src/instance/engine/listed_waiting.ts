import { MAX_LISTED_WAITING, type QueuedRequest } from "../../core/protocol/instance_info.ts";
import type { Sequence } from "./sequence.ts";

/**
 * The waiting requests that a report lists. A request is left out if another one before it is not
 * larger and did not arrive later: wherever the first fits, the other fits too and comes first. Few
 * requests of a long queue remain, so that its reports cost hardly more than others.
 */
export function listedWaiting(
  queue: readonly Pick<Sequence, "requestId" | "lengthTokens" | "arrivalMs">[],
  blockSize: number,
): QueuedRequest[] {
  const listed: QueuedRequest[] = [];
  for (let i = 0; i < queue.length && i < MAX_LISTED_WAITING; i++) {
    const { requestId, lengthTokens, arrivalMs } = queue[i];
    const blocks = lengthTokens / blockSize;
    const comesAfter = (other: QueuedRequest) =>
      other.blocks <= blocks && other.arrivalMs <= arrivalMs;
    if (!listed.some(comesAfter)) listed.push({ requestId, blocks, arrivalMs });
  }
  return listed;
}
