import assert from "node:assert/strict";
import { withServer } from "./harness.ts";

Deno.test("HEAD answers like GET, without a body", () =>
  withServer({}, async ({ url }) => {
    for (const path of ["/health", "/v1/models", "/v1/models/fake", "/version", "/docs"]) {
      const [get, head] = await Promise.all(
        ["GET", "HEAD"].map((method) => fetch(url + path, { method })),
      );
      assert.equal(head.status, get.status);
      assert.equal(head.headers.get("content-type"), get.headers.get("content-type"));
      assert.equal(await head.text(), "");
      await get.body?.cancel();
    }
    const head = await fetch(`${url}/v1/completions`, { method: "HEAD" });
    assert.equal(head.status, 405);
  }));

Deno.test("slashes at the end of a path do not matter", () =>
  withServer({}, async ({ url, post }) => {
    for (const path of ["/health/", "/v1/models/", "/v1/models//", "/v1/models/org/alias/"]) {
      const response = await fetch(url + path);
      assert.equal(response.status, 200, path);
      await response.body?.cancel();
    }
    assert.equal((await post("/v1/completions/", { prompt: "a" })).status, 200);
  }));

Deno.test("with --root-path requests may have the prefix or not", () =>
  withServer({ options: { rootPath: "/llm/" } }, async ({ url }) => {
    for (const path of ["/llm/health", "/health", "/llm/v1/models"]) {
      const response = await fetch(url + path);
      assert.equal(response.status, 200, path);
      await response.body?.cancel();
    }
    const other = await fetch(`${url}/llmhealth`);
    assert.equal(other.status, 404);
    await other.body?.cancel();
  }));

Deno.test("/ping takes GET and POST, /load counts the requests in work", () =>
  withServer({}, async ({ url, post, service }) => {
    for (const method of ["GET", "POST"]) {
      const ping = await fetch(`${url}/ping`, { method });
      assert.equal(ping.status, 200);
      assert.equal(await ping.text(), "");
    }
    const load = async () => (await (await fetch(`${url}/load`)).json()).server_load;
    assert.equal(await load(), 0);
    let finish = () => {};
    const started = new Promise<void>((resolve) => {
      service.generate = (_request, emit) => {
        finish = () =>
          emit({ text: "x", tokenIds: [1], finish: { reason: "stop", stopReason: null } });
        resolve();
      };
    });
    const answer = post("/v1/completions", { prompt: "a" });
    await started;
    assert.equal(await load(), 1);
    finish();
    assert.equal((await answer).status, 200);
    assert.equal(await load(), 0);
  }));

Deno.test("/tokenize answers the tokens of a prompt or a chat, /detokenize their text", () =>
  withServer({}, async ({ post }) => {
    const { json } = await post("/tokenize", { prompt: "ab", return_token_strs: true });
    assert.deepEqual(json, {
      count: 2,
      max_model_len: 4096,
      tokens: [97, 98],
      token_strs: ["a", "b"],
    });
    const chat = await post("/tokenize", { messages: [{ role: "user", content: "a" }] });
    assert.deepEqual(chat.json.tokens, [..."<user>a"].map((it) => it.codePointAt(0)));
    assert.equal(chat.json.token_strs, null);
    assert.deepEqual((await post("/detokenize", { tokens: [97, 98] })).json, { prompt: "ab" });

    for (
      const [path, body, param] of [
        ["/tokenize", {}, "prompt"],
        ["/tokenize", { prompt: "a", messages: [] }, "prompt"],
        ["/tokenize", { prompt: "a", model: "nope" }, "model"],
        ["/detokenize", {}, "tokens"],
        ["/detokenize", { tokens: [1, -1] }, "tokens"],
        ["/detokenize", { tokens: [1000] }, "tokens"],
      ] as const
    ) {
      const { status, json } = await post(path, body);
      assert.ok(status === 400 || status === 404);
      assert.equal(json.error.param, param, JSON.stringify(body));
    }
  }));

Deno.test("/openapi.json describes every route with the limits that requests are checked by", () =>
  withServer({ options: { rootPath: "/llm" } }, async ({ url }) => {
    const document = await (await fetch(`${url}/openapi.json`)).json();
    assert.equal(document.openapi, "3.1.0");
    assert.deepEqual(document.servers, [{ url: "/llm" }]);
    const unknown = await (await fetch(`${url}/nothing`)).json();
    const listed = [...unknown.error.message.matchAll(/(GET|POST) (\/[^,.]*(?:\.json)?)/g)]
      .map(([, method, path]) => `${method.toLowerCase()} ${path}`)
      .filter((route) => !/\/(docs|openapi\.json)$/.test(route));
    const described = Object.entries(document.paths as Record<string, object>)
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
    assert.deepEqual(described.toSorted(), listed.toSorted());
    const body = document.paths["/v1/chat/completions"].post.requestBody;
    const { properties, required } = body.content["application/json"].schema;
    assert.deepEqual(required, ["messages"]);
    assert.deepEqual(properties.n.anyOf[0], { type: "integer", minimum: 1, maximum: 128 });
    assert.equal(properties.stop.anyOf[0].anyOf[0].maxLength, 1024);
    assert.ok(properties.logit_bias && properties.temperature && properties.chat_template_kwargs);
  }));

Deno.test("/docs is one page that loads nothing else", () =>
  withServer({}, async ({ url }) => {
    const response = await fetch(`${url}/docs`);
    const page = await response.text();
    assert.match(response.headers.get("content-type")!, /^text\/html/);
    assert.match(page, /POST \/v1\/chat\/completions/);
    assert.match(page, /<code>messages<\/code> \*/);
    assert.doesNotMatch(page, /<(script|link|img|iframe)|https?:|url\(/);
  }));
