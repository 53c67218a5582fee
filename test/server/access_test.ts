import assert from "node:assert/strict";
import type { Log } from "../../src/core/log.ts";
import { WrongTokens } from "../../src/server/access.ts";
import type { Exchange } from "../../src/server/exchange.ts";
import { watch } from "../patience.ts";
import { withServer } from "./harness.ts";

const apiKeys = ["key-one", "key-two"];
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

const guarded: [method: string, path: string, body: unknown][] = [
  ["GET", "/v1/models", undefined],
  ["GET", "/v1/models/fake", undefined],
  ["GET", "/v1/no/such/route", undefined],
  ["POST", "/v1/completions", { prompt: "a" }],
  ["POST", "/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
  ["POST", "/generate", { prompt: "a" }],
  ["POST", "/generate_benchmark", { prompt: "a" }],
  ["POST", "/tokenize", { prompt: "a" }],
  ["POST", "/detokenize", { tokens: [1] }],
];

Deno.test("with --api-key every /v1 and /generate route needs one of the keys", () =>
  withServer({ apiKeys }, async ({ url, service }) => {
    const ask = (method: string, path: string, body: unknown, headers: Record<string, string>) =>
      fetch(url + path, {
        method,
        headers: { "content-type": "application/json", ...headers },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    for (const [method, path, body] of guarded) {
      for (
        const headers of [{}, bearer("key-on"), bearer("key-one2"), { authorization: "key-one" }]
      ) {
        const refused = await ask(method, path, body, headers as Record<string, string>);
        assert.equal(refused.status, 401, path);
        assert.match(refused.headers.get("www-authenticate")!, /^Bearer /);
        assert.equal((await refused.json()).error.code, "invalid_api_key");
        assert.equal(service.requests.length, 0);
        if (path !== "/v1/models") break; // further wrong keys would have to wait
      }
    }
    for (const key of apiKeys) {
      for (const [method, path, body] of guarded) {
        const answer = await ask(method, path, body, bearer(key));
        assert.equal(answer.status, path.includes("no/such") ? 404 : 200, path);
        await answer.body?.cancel();
      }
    }
    for (
      const path of [
        "/health",
        "/is_ready",
        "/version",
        "/ping",
        "/load",
        "/metrics",
        "/openapi.json",
      ]
    ) {
      const open = await fetch(url + path);
      assert.equal(open.status, 200, path);
      await open.body?.cancel();
    }
  }));

Deno.test("a wrong key is logged with the client's address, and never itself", () =>
  withServer({ apiKeys, options: { disableLogRequestsServer: false } }, async ({ post, log }) => {
    await post("/v1/completions", { prompt: "a" }, bearer("secret-guess"));
    await post("/v1/completions", { prompt: "a" }, bearer("key-one"));
    const warning = log.find((line) => line.startsWith("a client sent a wrong API key"));
    assert.match(warning!, /"address":"127.0.0.1","path":"\/v1\/completions"/);
    assert.ok(log.every((line) => !line.includes("secret-guess") && !line.includes("key-one")));
  }));

Deno.test("a wrong admin token is logged with the client's address", () =>
  withServer(
    { admin: { token: "right", call: () => Promise.reject(new Error("unused")) } },
    async ({ url, log }) => {
      const response = await fetch(`${url}/admin/instances`, { headers: bearer("wrong") });
      assert.equal(response.status, 403);
      await response.body?.cancel();
      assert.match(log[0], /^a client sent a wrong admin token \{"address":"127.0.0.1"/);
    },
  ));

Deno.test("guessing is slowed down for its address, and bounded", async () => {
  const lines: string[] = [];
  const append: Log["warn"] = (message) => lines.push(message);
  const tokens = new WrongTokens({ debug: append, info: append, warn: append, error: append }, 50);
  const from = (address: string) => ({ address, path: "/", requestId: "r" }) as Exchange;
  /** Whether an address has to wait: for a timer, and not only for promises. */
  const waits = async (address: string) => {
    const admitted = tokens.admit(from(address));
    const state = watch(admitted);
    for (let i = 0; i < 10; i++) await Promise.resolve();
    const { isSettled } = state;
    await admitted;
    return !isSettled;
  };
  for (let i = 0; i < 15; i++) tokens.note(from("a"), "API key");
  assert.equal(lines.length, 11); // ten, and one that says that there will be no more
  assert.equal(await waits("a"), true);
  assert.equal(await waits("b"), false);
  const waiting = Array.from({ length: 32 }, () => tokens.admit(from("a")));
  await assert.rejects(
    tokens.admit(from("a")),
    /More than 10 wrong tokens or keys came from this address/,
  );
  await tokens.admit(from("b"));
  await Promise.all(waiting);
  for (let i = 0; i < 2000; i++) tokens.note(from(`address-${i}`), "API key");
  assert.equal(await waits("a"), false, "the oldest address is still remembered");
});

Deno.test("an address that others reach, and pages of every site, need a key or get a warning", async () => {
  const warnings = async (options: object, keys: readonly string[] = []) => {
    let lines: string[] = [];
    await withServer({ options, apiKeys: keys }, ({ log }) => {
      lines = [...log];
      return Promise.resolve();
    });
    return lines.join("\n");
  };
  assert.equal(await warnings({}), "");
  assert.match(await warnings({ host: "0.0.0.0" }), /everyone who reaches this address/);
  assert.match(await warnings({ allowedOrigins: '["*"]' }), /pages of every site/);
  assert.equal(await warnings({ host: "0.0.0.0", allowedOrigins: '["*"]' }, ["k"]), "");
});
