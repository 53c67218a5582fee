import assert from "node:assert/strict";
import { checkAdmission, checkRequest } from "../../../src/instance/engine/request_checks.ts";
import type { Scheduler } from "../../../src/instance/engine/scheduler.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { generateRequest } from "../support.ts";

Deno.test("checkRequest: unknown, with a prompt, and all tokens in the vocabulary", () => {
  const check = (id: string, parts: object) => () =>
    checkRequest(generateRequest(id, 3, {}, parts), new Map([["known", null]]), 10);
  check("new", { promptTokenIds: [0, 9], outputTokenIds: [9] })();
  assert.throws(check("known", { promptTokenIds: [0] }), {
    name: "RequestError",
    param: "request_id",
  });
  assert.throws(check("new", { promptTokenIds: [] }), { message: "The prompt is empty." });
  for (const token of [10, -1, 0.5, NaN]) {
    const message = `Token ${token} is not in the vocabulary: expected integers from 0 to 9.`;
    assert.throws(check("new", { promptTokenIds: [token] }), { message });
    assert.throws(check("new", { promptTokenIds: [0], outputTokenIds: [token] }), { message });
  }
});

Deno.test("checkAdmission: fits some time, and the queue has room", () => {
  const sequence = new Sequence(generateRequest("a", 3), 0);
  const check = (admission: string, waiting: number) => () => {
    const scheduler = {
      admissionOf: () => admission,
      neverFits: () => new RangeError("too long"),
      waiting: { length: waiting },
    };
    const config = { maxWaitingRequests: 2, instanceId: "i0" };
    checkAdmission(sequence, scheduler as unknown as Scheduler, config);
  };
  check("yes", 1)();
  check("later", 1)();
  assert.throws(check("never", 0), RangeError);
  assert.throws(check("yes", 2), { name: "OverloadedError", message: /2 requests .* on i0/ });
});
