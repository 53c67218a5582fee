import {
  MAX_LISTED_REQUESTS,
  type RequestsQuery,
  type RequestsReply,
} from "../../core/protocol/admin.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { Sequence } from "./sequence.ts";

/**
 * The state of an instance's requests, for people: the requests that the query names, or all of
 * them, in the order in which the instance accepted them.
 */
export function requestStatuses(
  sequences: Iterable<Sequence>,
  { requestIds }: RequestsQuery,
  instanceId: InstanceId,
  nowMs: number,
): RequestsReply {
  const named = requestIds && new Set(requestIds);
  const chosen = [...sequences].filter(({ requestId }) => named?.has(requestId) !== false);
  return {
    requests: chosen.slice(0, MAX_LISTED_REQUESTS).map((sequence) => ({
      requestId: sequence.requestId,
      instanceId,
      priority: sequence.priority,
      state: sequence.status,
      promptTokens: sequence.promptTokenIds.length,
      outputTokens: sequence.outputTokenIds.length,
      ageMs: Math.max(0, nowMs - sequence.arrivalMs),
    })),
    numOmitted: Math.max(0, chosen.length - MAX_LISTED_REQUESTS),
  };
}
