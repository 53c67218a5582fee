import type { InstanceId } from "../../core/messages.ts";
import type { DispatchCandidate, DispatchPolicy } from "./dispatch.ts";

/** The instance with the smallest load; of several, such as idle ones, the least used so far. */
export class LeastLoad implements DispatchPolicy {
  choose(candidates: readonly DispatchCandidate[]): InstanceId {
    let best = candidates[0];
    for (const candidate of candidates) {
      const { load, dispatchedRequests } = candidate;
      if (load > best.load) continue;
      if (load < best.load || dispatchedRequests < best.dispatchedRequests) best = candidate;
    }
    return best.instanceId;
  }
}
