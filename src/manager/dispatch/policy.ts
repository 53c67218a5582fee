import type { InstanceId } from "../../core/protocol/generate.ts";

/** An instance that may take the request. Requests that it has not reported yet are counted in. */
export interface DispatchCandidate {
  readonly instanceId: InstanceId;
  /** Dispatch load (src/manager/README.md, "Load"). */
  readonly load: number;
  /** Blocks of prompts to compute before the request, where the metric counts those first; else 0. */
  readonly aheadBlocks: number;
  readonly waitingRequests: number;
  /** Requests that the manager has dispatched to it so far. */
  readonly dispatchedRequests: number;
}

/** Chooses the instance of a request: a synchronous decision over plain data. */
export interface DispatchPolicy {
  /**
   * @param candidates at least one, sorted by id. If several are equally good, choose the first.
   * @returns the id of one of the candidates
   */
  choose(candidates: readonly DispatchCandidate[]): InstanceId;
}
