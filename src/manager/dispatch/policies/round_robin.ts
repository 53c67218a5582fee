import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { DispatchCandidate, DispatchPolicy } from "../policy.ts";

/**
 * Instances in the order of their ids, one after the other. It remembers the last id rather than a
 * position, so that instances that come and go do not make it skip or favour others.
 */
export class RoundRobin implements DispatchPolicy {
  #last: InstanceId | null;

  /** @param last the instance that the request before went to */
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
