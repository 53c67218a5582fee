import type { DispatchCandidate } from "../../../src/manager/dispatch/policy.ts";

/** An idle candidate; `overrides` win. */
export function candidateOf(
  instanceId: string,
  overrides: Partial<DispatchCandidate> = {},
): DispatchCandidate {
  return {
    instanceId,
    load: -Infinity,
    aheadBlocks: 0,
    waitingRequests: 0,
    dispatchedRequests: 0,
    ...overrides,
  };
}
