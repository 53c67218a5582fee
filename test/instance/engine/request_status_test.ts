import assert from "node:assert/strict";
import { MAX_LISTED_REQUESTS } from "../../../src/core/protocol/admin.ts";
import { requestStatuses } from "../../../src/instance/engine/request_status.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { generateRequest } from "../support.ts";

function sequences(count: number): Sequence[] {
  return Array.from({ length: count }, (_, i) => {
    return new Sequence(generateRequest(`r${i}`, 3, {}, { arrivalMs: 100 }), i);
  });
}

Deno.test("requestStatuses: the named requests, or all, in their order", () => {
  const all = sequences(3);
  all[1].append(7);
  const ids = (requestIds?: string[]) =>
    requestStatuses(all, { requestIds }, "i0", 0).requests.map(({ requestId }) => requestId);
  assert.deepEqual(ids(), ["r0", "r1", "r2"]);
  assert.deepEqual(ids(["r2", "r0", "unknown"]), ["r0", "r2"]);
  assert.deepEqual(requestStatuses(all, { requestIds: ["r1"] }, "i0", 250), {
    requests: [{
      requestId: "r1",
      instanceId: "i0",
      priority: "normal",
      state: "waiting",
      promptTokens: 3,
      outputTokens: 1,
      ageMs: 150,
    }],
    numOmitted: 0,
  });
});

Deno.test("requestStatuses: a long list is cut, and says by how much; no age is negative", () => {
  const reply = requestStatuses(sequences(MAX_LISTED_REQUESTS + 2), {}, "i0", 0);
  assert.equal(reply.requests.length, MAX_LISTED_REQUESTS);
  assert.equal(reply.numOmitted, 2);
  assert.equal(reply.requests[0].ageMs, 0);
});
