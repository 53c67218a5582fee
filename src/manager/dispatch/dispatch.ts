import type { InstanceId } from "../../core/messages.ts";
import type { ManagerOptions } from "../../core/options.ts";
import type { Random } from "../../core/random.ts";
import { Balanced } from "./policies/balanced.ts";
import { LeastLoad } from "./policies/least_load.ts";
import { RoundRobin } from "./policies/round_robin.ts";
import { ShortestQueue } from "./policies/shortest_queue.ts";

/** An instance that may take a request, with what the manager has sent it and not heard of yet. */
export interface DispatchCandidate {
  readonly instanceId: InstanceId;
  /** Dispatch load. */
  readonly load: number;
  /** Blocks of prompts that come before the request, where that counts more than the load; else 0. */
  readonly aheadBlocks: number;
  readonly waitingRequests: number;
  /** Requests that the manager has given it so far. */
  readonly dispatchedRequests: number;
}

/** Chooses the instance of a request: a synchronous decision over plain data. */
export interface DispatchPolicy {
  /** @param candidates at least one; the first wins where the policy does not say more */
  choose(candidates: readonly DispatchCandidate[]): InstanceId;
}

export type DispatchPolicyName = ManagerOptions["dispatchPolicy"];

/** One line per policy. */
const policies: Readonly<Record<DispatchPolicyName, (random: Random) => DispatchPolicy>> = {
  balanced: () => new Balanced(),
  load: () => new LeastLoad(),
  queue: (random) => new ShortestQueue(random),
  rr: () => new RoundRobin(),
};

/** @param random where a policy draws by lot */
export function createDispatchPolicy(name: DispatchPolicyName, random: Random): DispatchPolicy {
  return policies[name](random);
}
