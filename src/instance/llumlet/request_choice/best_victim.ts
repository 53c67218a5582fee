import type { RequestId } from "../../../core/protocol/generate.ts";
import type { RunningRequest } from "./policy.ts";

/**
 * The request with the smallest `cost`, the first of several; none if no request runs. Requests of
 * high priority are considered only if there are no others.
 */
export function bestVictim(
  running: readonly RunningRequest[],
  cost: (request: RunningRequest) => number,
): RequestId[] {
  const normal = running.filter(({ priority }) => priority === "normal");
  let best: RunningRequest | null = null;
  for (const request of normal.length > 0 ? normal : running) {
    if (best === null || cost(request) < cost(best)) best = request;
  }
  return best === null ? [] : [best.requestId];
}
