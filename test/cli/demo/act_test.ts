import assert from "node:assert/strict";
import { type ActOptions, measureSpeed, measureTokens } from "../../../src/cli/demo/act.ts";
import { withServer } from "../../server/harness.ts";

Deno.test("the demo measures a server that wants an API key, which the environment may set", () =>
  withServer({ apiKeys: ["key"], options: { maxQueuedRequests: 32 } }, async ({ url, service }) => {
    service.generate = (_request, emit) => {
      emit({ text: "a", tokenIds: [1], finish: { reason: "length", stopReason: null } });
    };
    const act: ActOptions = {
      baseUrl: new URL(`${url}/`),
      adminToken: "token",
      headers: { authorization: "Bearer key" },
      signal: new AbortController().signal,
    };
    assert.ok(await measureTokens(act) > 0);
    assert.ok(await measureSpeed(act) > 0);
  }));
