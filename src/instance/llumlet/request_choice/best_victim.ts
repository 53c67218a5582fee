import type { RequestId } from "../../../core/protocol/generate.ts";
import type { RunningRequest } from "./policy.ts";

/**
 * The first of the requests for which `cost` is smallest, among those of normal priority while there
 * are any: a request of high priority is never moved for one that is not. At most one.
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
