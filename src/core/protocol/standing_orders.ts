/**
 * What operators and scaling have ordered, and what must outlive the manager that took the orders. Each
 * instance and each agent keeps the latest copy, and gives it to the next manager when it joins. Nothing of
 * it is in the lease store.
 */
import type { InstanceId } from "./generate.ts";
import type { ManagerDecision } from "./leadership.ts";

/** Most hosts that are drained at a time, and most instances. */
export const MAX_DRAINED_HOSTS = 1_024;
export const MAX_DRAINED_INSTANCES = 16_384;

export interface StandingOrders {
  /** Of the leadership in which they were sent; 0: without a cluster there is none. */
  readonly epoch: number;
  /**
   * Of two orders of one epoch the greater is the newer. The next manager counts on. In epoch 0 at least the
   * time at which they were sent, in Unix milliseconds: a manager may send some before it hears of
   * earlier ones.
   */
  readonly version: number;
  /** Instances that were added, less those that were removed. */
  readonly instanceChange: number;
  readonly drains: readonly InstanceDrainOrder[];
  readonly hostDrains: readonly HostDrainNote[];
}

export interface InstanceDrainOrder {
  readonly instanceId: InstanceId;
  readonly by: "operator" | "scaling";
  /** The instance stops once it is empty, and no other takes its place. */
  readonly isRemoval: boolean;
}

export interface HostDrainNote {
  readonly hostName: string;
  /** Instances that drain at the same time; null: all of them. */
  readonly atOnce: number | null;
}

/** Manager to instance or agent, call `keep_orders`: they are given back to the next manager. */
export interface KeepOrders extends ManagerDecision {
  readonly orders: StandingOrders;
}

/** Whether one copy is newer than another; undefined: there is none. */
export function isNewer(one: StandingOrders, other: StandingOrders | undefined): boolean {
  if (other === undefined) return true;
  return one.epoch > other.epoch || (one.epoch === other.epoch && one.version > other.version);
}
