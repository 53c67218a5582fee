import {
  MAX_LISTED_REQUESTS,
  type RequestsQuery,
  type RequestsReply,
} from "../core/protocol/admin.ts";
import type { ClientRequest } from "./client_request.ts";

/** Which of an API server's requests no instance has: none can take them now, or they are being resumed. */
export function homelessRequests(
  requests: Iterable<ClientRequest>,
  { requestIds }: RequestsQuery,
  nowMs: number,
): RequestsReply {
  const asked = requestIds && new Set(requestIds);
  const homeless = [...requests].filter(({ link, requestId }) =>
    link === null && (asked === undefined || asked.has(requestId))
  );
  return {
    requests: homeless.slice(0, MAX_LISTED_REQUESTS).map((request) => ({
      requestId: request.requestId,
      instanceId: null,
      priority: request.priority,
      state: "waiting",
      promptTokens: request.promptTokens,
      outputTokens: request.nextIndex,
      ageMs: Math.max(0, nowMs - request.arrivalMs),
    })),
    numOmitted: Math.max(0, homeless.length - MAX_LISTED_REQUESTS),
  };
}
