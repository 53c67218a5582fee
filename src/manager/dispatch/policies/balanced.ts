import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { DispatchCandidate, DispatchPolicy } from "../policy.ts";

/** The instance to which the fewest requests have been dispatched so far. */
export class Balanced implements DispatchPolicy {
  choose(candidates: readonly DispatchCandidate[]): InstanceId {
    let best = candidates[0];
    for (const candidate of candidates) {
      if (candidate.dispatchedRequests < best.dispatchedRequests) best = candidate;
    }
    return best.instanceId;
  }
}
