import { UsageError } from "../../core/errors.ts";
import type { DispatchRequest, InstanceId, InstanceInfo } from "../../core/messages.ts";
import type { ManagerOptions } from "../../core/options.ts";
import { RoundRobin } from "./round_robin.ts";

/** An instance that can take a request. */
export interface DispatchCandidate {
  readonly instanceId: InstanceId;
  /** Its last report; null before the first. */
  readonly info: InstanceInfo | null;
}

/** Chooses the instance of a request: a synchronous decision over plain data. */
export interface DispatchPolicy {
  /** @param candidates at least one, sorted by id */
  choose(candidates: readonly DispatchCandidate[], request: DispatchRequest): InstanceId;
}

type PolicyName = ManagerOptions["dispatchPolicy"];

/** One line per policy. */
const policies: Partial<Record<PolicyName, () => DispatchPolicy>> = {
  rr: () => new RoundRobin(),
};

/** @throws {UsageError} the policy is not there */
export function createDispatchPolicy(name: PolicyName): DispatchPolicy {
  const create = policies[name];
  if (create) return create();
  const known = Object.keys(policies).join(", ");
  throw new UsageError(`--dispatch-policy ${name} is not available yet; available: ${known}`);
}
