import assert from "node:assert/strict";
import { withServer } from "./harness.ts";

const HEADER = "x-request-priority";
const routes: [path: string, body: object][] = [
  ["/v1/completions", { prompt: "a" }],
  ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
  ["/generate", { prompt: "a" }],
  ["/generate_benchmark", { prompt: "a" }],
];

for (const [path, body] of routes) {
  Deno.test(`${path} hands the priority of field and header on`, () =>
    withServer({}, async ({ post, service }) => {
      await post(path, body);
      await post(path, { ...body, priority: null });
      await post(path, { ...body, priority: "high" });
      await post(path, { ...body, priority: "normal" });
      await post(path, body, { [HEADER]: "high" });
      const both = await post(path, { ...body, priority: "high" }, { [HEADER]: "high" });
      assert.equal(both.status, 200);
      const priorities = service.requests.map(({ priority }) => priority);
      assert.deepEqual(priorities, ["normal", "normal", "high", "normal", "high", "high"]);
    }));

  Deno.test(`${path} refuses what is no priority`, () =>
    withServer({}, async ({ post, service }) => {
      const refusal = async (fields: object, headers?: Record<string, string>) => {
        const { status, json } = await post(path, { ...body, ...fields }, headers);
        assert.equal(status, 400);
        assert.equal(json.error.type, "invalid_request_error");
        return [json.error.param, json.error.message];
      };
      assert.deepEqual(await refusal({ priority: "urgent" }), [
        "priority",
        'priority must be "high" or "normal", got "urgent".',
      ]);
      assert.deepEqual(await refusal({ priority: 1 }), [
        "priority",
        'priority must be "high" or "normal", got 1.',
      ]);
      assert.deepEqual(await refusal({}, { [HEADER]: "HIGH" }), [
        HEADER,
        'The header x-request-priority must be "high" or "normal", got "HIGH".',
      ]);
      assert.deepEqual(await refusal({ priority: "normal" }, { [HEADER]: "high" }), [
        "priority",
        "Field priority and header x-request-priority contradict each other (normal, high); send " +
        "one of them, or the same in both.",
      ]);
      assert.equal(service.requests.length, 0);
    }));
}

Deno.test("two headers that contradict each other are refused", () =>
  withServer({}, async ({ url }) => {
    const headers = new Headers({ "content-type": "application/json" });
    headers.append(HEADER, "high");
    headers.append(HEADER, "normal");
    const body = JSON.stringify({ prompt: "a" });
    const response = await fetch(`${url}/generate`, { method: "POST", headers, body });
    assert.equal(response.status, 400);
    assert.match((await response.json()).error.message, /must be "high" or "normal", got "high, /);
  }));
