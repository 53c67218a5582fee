import type { DispatchPolicy } from "./policy.ts";
import type { ManagerOptions } from "../../core/options.ts";
import type { Random } from "../../core/random.ts";
import { Balanced } from "./policies/balanced.ts";
import { LeastLoad } from "./policies/least_load.ts";
import { RoundRobin } from "./policies/round_robin.ts";
import { ShortestQueue } from "./policies/shortest_queue.ts";

export type DispatchPolicyName = ManagerOptions["dispatchPolicy"];

/** One line per policy. */
const policies: Readonly<Record<DispatchPolicyName, (random: Random) => DispatchPolicy>> = {
  balanced: () => new Balanced(),
  load: () => new LeastLoad(),
  queue: (random) => new ShortestQueue(random),
  rr: () => new RoundRobin(),
};

/** @param random for policies that choose at random */
export function createDispatchPolicy(name: DispatchPolicyName, random: Random): DispatchPolicy {
  return policies[name](random);
}
