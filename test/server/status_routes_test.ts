import assert from "node:assert/strict";
import { withServer } from "./harness.ts";

Deno.test("health, readiness and version", () =>
  withServer({}, async ({ url, service }) => {
    const health = await fetch(`${url}/health`);
    assert.equal(health.status, 200);
    assert.equal(await health.text(), "");
    assert.equal((await fetch(`${url}/health`, { method: "HEAD" })).status, 200);
    assert.equal(await (await fetch(`${url}/is_ready`)).json(), true);
    service.ready = false;
    assert.equal(await (await fetch(`${url}/is_ready`)).json(), false);
    assert.deepEqual(await (await fetch(`${url}/version?x=1`)).json(), { version: "1.2.3" });
  }));

Deno.test("models by every served name, with slashes escaped or not", () =>
  withServer({}, async ({ url }) => {
    const card = {
      id: "org/alias",
      object: "model",
      created: 1_700_000_000,
      owned_by: "llumnix",
      root: "fake",
      parent: null,
      max_model_len: 4096,
    };
    const list = await (await fetch(`${url}/v1/models`)).json();
    assert.deepEqual(list, { object: "list", data: [{ ...card, id: "fake" }, card] });
    for (const path of ["org/alias", "org%2Falias"]) {
      assert.deepEqual(await (await fetch(`${url}/v1/models/${path}`)).json(), card);
    }
    for (const path of ["other", "%"]) {
      const response = await fetch(`${url}/v1/models/${path}`);
      assert.equal(response.status, 404);
      const { error } = await response.json();
      assert.equal(error.code, "model_not_found");
      assert.match(error.message, /does not exist here; served: fake, org\/alias/);
    }
  }));

Deno.test("a sane x-request-id is kept and any other replaced", () =>
  withServer({}, async ({ post, service }) => {
    const kept = await post("/v1/completions", { prompt: "a" }, { "x-request-id": "trace-7:b" });
    assert.equal(kept.headers.get("x-request-id"), "trace-7:b");
    assert.equal(kept.json.id, "cmpl-trace-7:b");
    for (const id of ["a b", "x".repeat(200), "é".repeat(1)]) {
      const headers = { "x-request-id": encodeURI(id).length > 1 ? encodeURI(id) : id };
      const { headers: answered } = await post("/v1/completions", { prompt: "a" }, headers);
      assert.match(answered.get("x-request-id")!, /^[0-9a-f]{32}$/);
    }
    await post("/generate", { prompt: "a" }, { "x-request-id": "trace-7:b" });
    const ids = service.requests.map((request) => request.requestId);
    assert.equal(new Set(ids).size, ids.length);
  }));

Deno.test("requests are logged unless that is switched off", async () => {
  await withServer({ options: { disableLogRequests: false, maxLogLen: 3 } }, async (harness) => {
    await harness.post("/v1/completions", { prompt: "abcdef", seed: 1 });
    assert.equal(harness.log.length, 1);
    assert.match(harness.log[0], /received request.*"prompt":"\\"abc\\"".*"seed":1/);
  });
  await withServer({ options: { disableLogRequestsServer: false } }, async (harness) => {
    await harness.post("/v1/completions", { prompt: 1 }, { "x-request-id": "me" });
    assert.match(harness.log[0], /"POST","path":"\/v1\/completions","status":400.*"id":"me"/);
  });
});
