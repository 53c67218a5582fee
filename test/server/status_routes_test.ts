import assert from "node:assert/strict";
import { startServer } from "../../src/server/server.ts";
import { FakeTextService } from "./fake_text_service.ts";
import { testOptions, until, withServer } from "./harness.ts";

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
  const options = { disableLogRequests: false, logPrompts: true, maxLogLen: 3 };
  await withServer({ options }, async (harness) => {
    await harness.post("/v1/completions", { prompt: "abcdef", seed: 1 });
    assert.equal(harness.log.length, 1);
    assert.match(harness.log[0], /received request.*"prompt":"abc".*"seed":1/);
  });
  await withServer({ options: { ...options, disableLogRequests: true } }, async (harness) => {
    await harness.post("/v1/completions", { prompt: "abcdef", seed: 1 });
    assert.deepEqual(harness.log, []);
  });
  await withServer({ options: { disableLogRequestsServer: false } }, async (harness) => {
    await harness.post("/v1/completions", { prompt: 1 }, { "x-request-id": "me" });
    assert.match(harness.log[0], /"POST","path":"\/v1\/completions","status":400.*"id":"me"/);
  });
});

Deno.test("prompts are not logged unless asked: their lengths are", () =>
  withServer({ options: { disableLogRequests: false } }, async ({ post, log }) => {
    const messages = [{ role: "system", content: "hush" }, { role: "user", content: "secret" }];
    await post("/generate", { prompt: "secret" });
    await post("/generate", { prompt: [101, 102, 103] });
    await post("/v1/chat/completions", { messages });
    assert.match(log[0], /"promptChars":6,/);
    assert.match(log[1], /"promptTokens":3,/);
    assert.match(log[2], /"messages":2,"promptChars":10,/);
    for (const line of log) assert.doesNotMatch(line, /secret|hush|101,102/);
  }));

Deno.test("polls of health and readiness are logged for debugging alone", () =>
  withServer({ options: { disableLogRequestsServer: false } }, async ({ url, log }) => {
    for (const path of ["/health", "/is_ready?x", "/version"]) {
      await (await fetch(url + path)).text();
    }
    await until(() => log.length === 3);
    assert.deepEqual(log.map((line) => line.startsWith("debug: ")), [true, true, false]);
    for (const line of log) assert.match(line, /"client":"127\.0\.0\.1"/);
  }));

Deno.test("a logged prompt is cut, with or without --max-log-len", async () => {
  const many = Array(1000).fill({ role: "user", content: "x".repeat(10) });
  const long = [{ role: "user", content: "x".repeat(10_000) }];
  const size = (shown: string) => shown.length;
  const cases: [path: string, body: unknown, size: (shown: string) => number][] = [
    ["/generate", { prompt: "x".repeat(10_000) }, size],
    ["/generate", { prompt: Array(10_000).fill(1) }, (shown) => JSON.parse(shown).length],
    ["/v1/chat/completions", { messages: many }, size],
    ["/v1/chat/completions", { messages: long }, size],
  ];
  for (const [maxLogLen, most] of [[null, 2048], [5000, 5000], [10, 10], [0, 0]] as const) {
    const options = {
      disableLogRequests: false,
      logPrompts: true,
      maxBodyBytes: 2 ** 20,
      maxLogLen,
    };
    await withServer({ options }, async ({ post, log }) => {
      for (const [path, body, sizeOf] of cases) {
        await post(path, body);
        const { prompt } = JSON.parse(log.pop()!.replace("received request ", ""));
        assert.equal(sizeOf(prompt), most, `${path} ${prompt.slice(0, 50)}`);
      }
    });
  }
});

Deno.test("a request is only described when its line is written", async () => {
  const fields: unknown[] = [];
  const server = await startServer({
    service: new FakeTextService(),
    options: { ...testOptions, disableLogRequests: false, disableLogRequestsServer: false },
    version: "0",
    log: { debug() {}, info: (_, given) => fields.push(given), warn() {}, error() {} },
  });
  const body = JSON.stringify({ prompt: "a" });
  const headers = { "content-type": "application/json" };
  await (await fetch(`${server.url}/generate`, { method: "POST", headers, body })).text();
  await server.shutdown(1000);
  assert.deepEqual(fields.map((given) => typeof given), ["function", "function"]);
});
