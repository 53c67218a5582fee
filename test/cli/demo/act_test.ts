import assert from "node:assert/strict";
import { type ActOptions, measureSpeed, measureTokens } from "../../../src/cli/demo/act.ts";
import { probeLoad } from "../../../src/cli/demo/load.ts";
import { Random } from "../../../src/core/random.ts";
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
    const charactersPerToken = await measureTokens(act);
    assert.ok(charactersPerToken > 0);
    const shape = { numInstances: 1, cacheTokens: 100, charactersPerToken };
    assert.ok(await measureSpeed(act, probeLoad(shape, new Random(1))) > 0);
  }));
