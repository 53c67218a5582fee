import { MAX_LISTED_WAITING, type QueuedRequest } from "../../core/protocol/instance_info.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Those in a queue that a report lists. One that is as large as another before it, and did not come
 * earlier, is left out: wherever it fits, that other fits too and is first. So few are left of a long
 * queue that its reports cost hardly more than others.
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
