import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { DispatchCandidate, DispatchPolicy } from "../policy.ts";

/**
 * The instances in turn, in the order of their ids. The policy remembers the last id rather than a
 * position, so that it neither skips nor favours an instance when others come and go.
 */
export class RoundRobin implements DispatchPolicy {
  #last: InstanceId | null;

  /** @param last the instance of the previous request; null: there was none */
  constructor(last: InstanceId | null = null) {
    this.#last = last;
  }

  choose(candidates: readonly DispatchCandidate[]): InstanceId {
    let first = candidates[0].instanceId;
    let next: InstanceId | null = null;
    for (const { instanceId } of candidates) {
      if (instanceId < first) first = instanceId;
      if (this.#last === null || instanceId <= this.#last) continue;
      if (next === null || instanceId < next) next = instanceId;
    }
    return this.#last = next ?? first;
  }
}
