import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { DispatchCandidate, DispatchPolicy } from "../policy.ts";

/**
 * The instance with the fewest blocks of prompts to compute before the request, where the metric counts
 * those; among equals the one with the smallest load; among equals again, such as idle instances, the
 * one to which the fewest requests have been dispatched.
 */
export class LeastLoad implements DispatchPolicy {
  choose(candidates: readonly DispatchCandidate[]): InstanceId {
    let best = candidates[0];
    for (const candidate of candidates) {
      if (isBetter(candidate, best)) best = candidate;
    }
    return best.instanceId;
  }
}

function isBetter(one: DispatchCandidate, than: DispatchCandidate): boolean {
  if (one.aheadBlocks !== than.aheadBlocks) return one.aheadBlocks < than.aheadBlocks;
  if (one.load !== than.load) return one.load < than.load;
  return one.dispatchedRequests < than.dispatchedRequests;
}
