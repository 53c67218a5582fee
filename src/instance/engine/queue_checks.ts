import type { RequestId } from "../../core/protocol/generate.ts";
import type { IncomingMigration } from "./incoming_migration.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Verifies that every request is in exactly the queue of its status, and that the queues hold no
 * other.
 * @throws {Error} naming the first inconsistency
 */
export function checkQueues(
  { waiting, running, swapped, suspended }: Scheduler,
  requests: ReadonlyMap<RequestId, Sequence>,
): void {
  for (const [status, queue] of Object.entries({ waiting, running, swapped, suspended })) {
    for (const sequence of queue) {
      const { requestId } = sequence;
      if (requests.get(requestId) !== sequence || sequence.status !== status) {
        throw new Error(`${requestId} is ${sequence.status} but among the ${status}`);
      }
    }
  }
  const queued = waiting.length + running.length + swapped.length + suspended.size;
  if (queued !== requests.size) {
    throw new Error(`${requests.size} requests, but ${queued} in the queues`);
  }
}

/**
 * Verifies that the scheduler keeps one place for each running request that migrates to or from
 * here.
 * @throws {Error} naming the numbers that differ
 */
export function checkPlaces(
  { suspended, keptPlaces }: Scheduler,
  incoming: Iterable<IncomingMigration>,
): void {
  const numOutgoing = [...suspended].filter(({ blocks }) => blocks.length > 0).length;
  const numIncoming = [...incoming].filter(({ keepsPlace }) => keepsPlace).length;
  if (keptPlaces === numOutgoing + numIncoming) return;
  throw new Error(
    `${keptPlaces} places kept for ${numOutgoing} outgoing and ${numIncoming} incoming requests`,
  );
}
