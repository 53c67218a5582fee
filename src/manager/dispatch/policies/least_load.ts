import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { DispatchCandidate, DispatchPolicy } from "../policy.ts";

/**
 * The instance with the least to compute before the request, where that counts; of several the one
 * with the smallest load; of several again, such as idle ones, the least used so far.
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
