import {
  MAX_LISTED_REQUESTS,
  type RequestsQuery,
  type RequestsReply,
} from "../core/protocol/admin.ts";
import type { ClientRequest } from "./client_request.ts";

/**
 * The requests of an API server that no instance has, for people: they wait for an instance, or are
 * being resumed. `query` names requests, or asks for all.
 */
export function unplacedRequests(
  requests: Iterable<ClientRequest>,
  { requestIds }: RequestsQuery,
  nowMs: number,
): RequestsReply {
  const named = requestIds && new Set(requestIds);
  const unplaced = [...requests].filter(({ link, requestId }) =>
    link === null && named?.has(requestId) !== false
  );
  return {
    requests: unplaced.slice(0, MAX_LISTED_REQUESTS).map((request) => ({
      requestId: request.requestId,
      instanceId: null,
      priority: request.priority,
      state: "waiting",
      promptTokens: request.promptTokens,
      outputTokens: request.nextIndex,
      ageMs: Math.max(0, nowMs - request.arrivalMs),
    })),
    numOmitted: Math.max(0, unplaced.length - MAX_LISTED_REQUESTS),
  };
}
