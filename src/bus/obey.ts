/** How a receiver of a manager's decisions checks who decides. */
import type { LeaderFence } from "../core/leader_fence.ts";
import { SupersededError } from "../core/leader_fence.ts";
import { logger } from "../core/log.ts";
import type { ManagerDecision } from "../core/protocol/leadership.ts";
import type { Peer } from "./bus.ts";

const log = logger("fence");

/**
 * Checks a decision before it is obeyed. A manager that no longer leads is told so.
 * @throws {SupersededError} the receiver knows a newer leadership
 */
export function obey(fence: LeaderFence, decision: ManagerDecision, peer: Peer): void {
  try {
    fence.check(decision);
  } catch (error) {
    if (!(error instanceof SupersededError)) throw error;
    log.warn(error.message, { remote: peer.remote });
    peer.notify("superseded", { data: error.known });
    throw error;
  }
}

/** Like {@linkcode obey}, for notifications, which have no answer. @returns false: ignore the decision */
export function isObeyed(fence: LeaderFence, decision: ManagerDecision, peer: Peer): boolean {
  try {
    obey(fence, decision, peer);
    return true;
  } catch (error) {
    if (error instanceof SupersededError) return false;
    throw error;
  }
}
