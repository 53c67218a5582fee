import type { InstanceId } from "../../core/protocol/generate.ts";

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
