import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { Random } from "../../../core/random.ts";
import type { DispatchCandidate, DispatchPolicy } from "../policy.ts";

/** One of the instances with the fewest waiting requests, chosen at random. */
export class ShortestQueue implements DispatchPolicy {
  constructor(private readonly random: Random) {}

  choose(candidates: readonly DispatchCandidate[]): InstanceId {
    let fewest = Infinity;
    for (const { waitingRequests } of candidates) fewest = Math.min(fewest, waitingRequests);
    const shortest = candidates.filter(({ waitingRequests }) => waitingRequests === fewest);
    return shortest[this.random.below(shortest.length)].instanceId;
  }
}
