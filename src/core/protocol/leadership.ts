/**
 * Who leads a cluster of several managers. With `--cluster`, each decision of a manager carries the epoch
 * of its leadership, and a receiver that knows a newer one refuses it: a manager that was paused, or cut
 * off, may not know yet that another one leads. Without a cluster there is one manager and no epoch.
 */

import type { InstanceId } from "./generate.ts";
import type { ServedSettings } from "./membership.ts";

/**
 * Highest epoch that is believed. With a leader a second it lasts 34,000 years. Without a bound, one wrong
 * record near 2^53 would leave no higher epoch for the next leader.
 */
export const MAX_EPOCH = 2 ** 40;

/** A term of leadership. The next leader's epoch is higher. */
export interface Leadership {
  readonly epoch: number;
  /** The process that leads: another one each time it starts. */
  readonly leader: string;
}

/** A decision that a manager sends. */
export interface ManagerDecision {
  /** Absent: the manager is the only one. */
  readonly leadership?: Leadership;
}

/**
 * Whether one leadership ends another. Two leaders of one epoch can be there after a store lost a write that
 * it had acknowledged: the one that a receiver heard first is right for that receiver, and the other one
 * needs a higher epoch.
 */
export function supersedes(known: Leadership, other: Leadership): boolean {
  return known.epoch > other.epoch ||
    (known.epoch === other.epoch && known.leader !== other.leader);
}

/** What a manager of several knows of the leader and of the lease store, for people. */
export interface LeadershipStatus {
  /** The manager that says so leads. */
  readonly isLeader: boolean;
  /** Of the leader; 0: no leader is known. */
  readonly epoch: number;
  /** Process that leads; empty: not known. */
  readonly leader: string;
  /** Where the leader serves; empty: not known. */
  readonly address: string;
  /** Why the lease store cannot be used now; null: it answers. */
  readonly storeProblem: string | null;
}

/** Instance to every manager of its cluster, call `hear`: the instance is there. */
export interface Presence {
  readonly instanceId: InstanceId;
}

/**
 * Follower to leader, call `identify`: the process at the leader's address. Another process than the one
 * that the store names has taken its place.
 */
export interface ProcessIdentity {
  /** As `leader` in {@linkcode Leadership}. */
  readonly process: string;
  /** What its instances serve; absent: whatever the first of them does. */
  readonly settings?: ServedSettings;
}
