import { randomId } from "./exchange.ts";

/**
 * An id for one prompt of the HTTP request `id`. Clients may send the same `x-request-id` twice, to
 * two servers even, and a cluster knows requests by their ids: hence the random end.
 */
export function newTextRequestId(id: string): string {
  return `${id}-${randomId().slice(0, 12)}`;
}
