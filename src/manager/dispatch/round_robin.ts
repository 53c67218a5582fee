import type { InstanceId } from "../../core/messages.ts";
import type { DispatchCandidate, DispatchPolicy } from "./dispatch.ts";

/**
 * Instances in the order of their ids, one after the other. It remembers the last id rather than a
 * position, so that instances that come and go do not make it skip or favour others.
 */
export class RoundRobin implements DispatchPolicy {
  #last: InstanceId | null = null;

  choose(candidates: readonly DispatchCandidate[]): InstanceId {
    const last = this.#last;
    const next = last !== null && candidates.find(({ instanceId }) => instanceId > last);
    return this.#last = (next || candidates[0]).instanceId;
  }
}
