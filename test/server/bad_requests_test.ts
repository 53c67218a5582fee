/** Requests that are refused, each with the message that the client gets. */
import assert from "node:assert/strict";
import { type ErrorRecord, OverloadedError, UnavailableError } from "../../src/core/errors.ts";
import { type Harness, until, withServer } from "./harness.ts";

const chat = (fields: object) => ({ messages: [{ role: "user", content: "x" }], ...fields });
const noGuides = "output cannot be constrained to a format or grammar; leave it out.";
const noBestOf =
  "choosing the best of several sequences is not supported; use n to get all of them.";

/** [path, body, status, message or its pattern, param] */
const cases: [string, unknown, number, string | RegExp, (string | null)?][] = [
  // The body
  ["/v1/completions", "", 400, "The request body is empty. Send a JSON object."],
  ["/v1/completions", "[1]", 400, /must be a JSON object such as/],
  ["/v1/completions", '{"prompt": "a",}', 400, /is not valid JSON: .* at position 15 /],
  [
    "/v1/completions",
    '{"prompt": "some long prompt", "temperature": NaN}',
    400,
    /is not valid JSON: Unexpected token 'N'.* \(at position 46\)/,
  ],
  ["/v1/completions", '{"prompt": "a', 400, /is not valid JSON: Unterminated string/],
  ["/v1/completions", "prompt=hello", 400, /Unexpected token 'p'.* \(at position 0\)/],
  // Prompts
  ["/v1/completions", {}, 400, /^prompt must be a string or an array of token ids, got nothing/],
  ["/generate", { prompt: 7 }, 400, /^prompt must be a string .*, got 7/, "prompt"],
  ["/generate", { prompt: ["a", "b"] }, 400, /takes one prompt; use \/v1\/completions/, "prompt"],
  ["/v1/completions", { prompt: "" }, 400, "The prompt is empty: it has no tokens.", "prompt"],
  ["/v1/completions", { prompt: [] }, 400, "The prompt is empty: it has no tokens.", "prompt"],
  ["/v1/completions", { prompt: [1, 2.5] }, 400, /token ids .*, got 2.5 at index 1/, "prompt"],
  ["/v1/completions", { prompt: [1, -1] }, 400, /got -1 at index 1/, "prompt"],
  ["/v1/completions", { prompt: [1, 1000] }, 400, /the vocabulary has ids 0 to 999/, "prompt"],
  ["/v1/completions", { prompt: ["a", 1] }, 400, /^prompt\[1\] must be a string/, "prompt[1]"],
  ["/v1/completions", '{"prompt": "\\ud800"}', 400, /half of a surrogate pair/, "prompt"],
  [
    "/v1/completions",
    { prompt: "x".repeat(4096) },
    400,
    /maximum context length is 4096 tokens. However, your prompt has 4096 tokens/,
    "prompt",
  ],
  ["/v1/completions", { prompt: "abc", max_tokens: 4096 }, 400, /you requested 4099 tokens/],
  // Parameters
  ["/v1/completions", { prompt: "a", max_tokens: 0 }, 400, /^max_tokens must be at least 1, got 0/],
  ["/v1/completions", { prompt: "a", max_tokens: -3 }, 400, /at least 1 .*, got -3/, "max_tokens"],
  ["/v1/completions", { prompt: "a", max_tokens: 1.5 }, 400, /an integer, got 1.5/, "max_tokens"],
  ["/v1/chat/completions", chat({ max_tokens: 0 }), 400, /at least 1 .*, got 0/, "max_tokens"],
  ["/generate", { prompt: "a", max_tokens: 0 }, 400, /at least 1 .*, got 0/, "max_tokens"],
  [
    "/v1/completions",
    { prompt: "a", temperature: "nan" },
    400,
    'temperature must be a number, got "nan".',
    "temperature",
  ],
  [
    "/v1/completions",
    '{"prompt": "a", "temperature": 1e999}',
    400,
    "temperature must be a number, got Infinity.",
    "temperature",
  ],
  ["/v1/completions", { prompt: "a", temperature: -1 }, 400, /a number >= 0, got -1/],
  ["/v1/completions", { prompt: "a", top_p: 0 }, 400, /top_p must be in \(0, 1\], got 0/, "top_p"],
  ["/v1/completions", { prompt: "a", top_k: -2 }, 400, /top_k must be -1 .*, got -2/, "top_k"],
  [
    "/v1/completions",
    { prompt: "a", seed: 1e300 },
    400,
    /seed must be an integer of at most 64 bits, got 1e\+300/,
  ],
  [
    "/v1/completions",
    { prompt: "a", stream: "yes" },
    400,
    'stream must be true or false, got "yes".',
  ],
  ["/v1/completions", { prompt: "a", stop: [""] }, 400, /^stop must be a string or an array of at/],
  [
    "/v1/completions",
    { prompt: "a", stop: "x".repeat(1025) },
    400,
    /^stop must be a string or .* each of 1 to 1024 characters, got ".*\(1025 characters\)\.$/,
    "stop",
  ],
  ["/v1/completions", { prompt: "a", stop: ["b", "x".repeat(1025)] }, 400, /^stop must be .* 1024/],
  [
    "/v1/completions",
    '{"prompt": "a", "stop": ["b", "\\ud83d"]}',
    400,
    "stop[1] has half of a surrogate pair, which is no character; send Unicode text.",
    "stop[1]",
  ],
  [
    "/v1/completions",
    { prompt: "a", stop: Array(17).fill("x") },
    400,
    /got an array of 17/,
  ],
  [
    "/v1/completions",
    { prompt: "a", stop: [1] },
    400,
    "stop must be a string or an array of at most 16 strings, each of 1 to 1024 characters, got [1].",
    "stop",
  ],
  ["/v1/completions", { prompt: "a", stop_token_ids: ["x"] }, 400, /must be an array of at most/],
  ["/v1/completions", { prompt: "a", logprobs: 6 }, 400, /more than 5 logprobs, got 6/, "logprobs"],
  [
    "/v1/completions",
    { prompt: "a", logprobs: true },
    400,
    "logprobs must be an integer, got true.",
  ],
  [
    "/v1/completions",
    { prompt: "a", stream: true, stream_options: { include_usage: 1 } },
    400,
    "stream_options.include_usage must be true or false, got 1.",
    "stream_options.include_usage",
  ],
  [
    "/v1/completions",
    { prompt: "a", stream_options: {} },
    400,
    'stream_options needs "stream": true.',
  ],
  [
    "/v1/completions",
    { prompt: "a", stream: true, prompt_logprobs: 1 },
    400,
    /cannot be streamed/,
    "prompt_logprobs",
  ],
  ["/v1/chat/completions", chat({ top_logprobs: 2 }), 400, 'top_logprobs needs "logprobs": true.'],
  // What would change the answer and is not there
  ["/v1/completions", { prompt: "a", n: 0 }, 400, "n must be at least 1, got 0.", "n"],
  ["/v1/completions", { prompt: "a", n: 129 }, 400, "n must be at most 128, got 129.", "n"],
  ["/generate", { prompt: "a", n: 2 }, 400, /^n must be 1 on this route .*, got 2/, "n"],
  ["/generate", { prompt: "a", best_of: 3 }, 400, `best_of is 3, but ${noBestOf}`, "best_of"],
  ["/v1/completions", { prompt: "a", n: 2, best_of: 3 }, 400, `best_of is 3, but ${noBestOf}`],
  ["/generate", { prompt: "a", use_beam_search: true }, 400, /beam search is not supported/],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user", content: "a" }], chat_template: "{{ 1 }}" },
    400,
    /a request cannot set the template/,
  ],
  ["/v1/completions", { prompt: "a", suffix: "b" }, 400, /^suffix is "b", but/, "suffix"],
  [
    "/v1/completions",
    { prompt: "a", logit_bias: { 5: 101 } },
    400,
    /numbers from -100 to 100, got {"5": 101}\.$/,
  ],
  ["/v1/completions", { prompt: "a", logit_bias: { x: 1 } }, 400, /^logit_bias must be an object/],
  ["/v1/completions", { prompt: "a", logit_bias: { 1000: 1 } }, 400, /logit_bias .* token id 1000/],
  ["/v1/completions", { prompt: "a", allowed_token_ids: [] }, 400, /an array of 1 to 4096 token/],
  ["/v1/completions", { prompt: "a", allowed_token_ids: [1000] }, 400, /token id 1000; the voc/],
  ["/v1/completions", { prompt: "a", bad_words: [""] }, 400, /^bad_words must be an array of at/],
  [
    "/v1/chat/completions",
    chat({ logprobs: true, top_logprobs: 21 }),
    400,
    /Cannot request more than 20 logprobs, got 21/,
  ],
  [
    "/v1/chat/completions",
    chat({ max_completion_tokens: 0 }),
    400,
    "max_completion_tokens must be at least 1, got 0.",
    "max_completion_tokens",
  ],
  ["/v1/chat/completions", chat({ chat_template_kwargs: 3 }), 400, /must be an object, got 3/],
  [
    "/v1/completions",
    { prompt: "a", guided_regex: "a+" },
    400,
    `guided_regex is "a+", but ${noGuides}`,
  ],
  [
    "/v1/chat/completions",
    chat({ response_format: { type: "json_object" } }),
    400,
    `response_format is {"type": "json_object"}, but ${noGuides}`,
    "response_format",
  ],
  ["/v1/chat/completions", chat({ tools: [{}] }), 400, /tool calls are not supported/, "tools"],
  // Messages
  ["/v1/chat/completions", {}, 400, "messages must be a non-empty array of messages, got nothing."],
  [
    "/v1/chat/completions",
    { messages: [] },
    400,
    /a non-empty array of messages, got an empty array\./,
  ],
  ["/v1/chat/completions", { messages: ["x"] }, 400, /^messages\[0\] must be an object with/],
  ["/v1/chat/completions", { messages: [{ content: "x" }] }, 400, /^messages\[0\].role must be/],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user" }] },
    400,
    "messages[0].content must be a string or an array of text parts, got nothing.",
    "messages[0].content",
  ],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] },
    400,
    'messages[0].content[0] is of type "image_url"; this model takes text parts only.',
    "messages[0].content[0]",
  ],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user", contnt: "x" }] },
    400,
    "messages[0].contnt is no field of this request; did you mean content?",
    "messages[0].contnt",
  ],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user", content: "x", nmae: "y" }] },
    400,
    "messages[0].nmae is no field of this request; did you mean name?",
    "messages[0].nmae",
  ],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user", content: [{ type: "text", txt: "x" }] }] },
    400,
    "messages[0].content[0].txt is no field of this request; did you mean text?",
    "messages[0].content[0].txt",
  ],
  [
    "/v1/chat/completions",
    { messages: [{ role: "user", content: ["x"] }] },
    400,
    'messages[0].content[0] must be a part {"type": "text", "text": "..."}.',
    "messages[0].content[0]",
  ],
  // Models
  [
    "/v1/completions",
    { model: "nope", prompt: "a" },
    404,
    /"nope" does not exist here; served: fake/,
  ],
  ["/v1/completions", { model: 3, prompt: "a" }, 400, "model must be a string, got 3.", "model"],
];

Deno.test("refused requests say why in OpenAI's form", async (t) => {
  await withServer({}, async ({ post, service }) => {
    for (const [path, body, status, message, param] of cases) {
      await t.step(`${path} ${JSON.stringify(body).slice(0, 70)}`, async () => {
        const answer = await post(path, body);
        assert.equal(answer.status, status, answer.text);
        assert.deepEqual(Object.keys(answer.json), ["error"]);
        const { error } = answer.json;
        assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
        assert.equal(error.type, "invalid_request_error");
        if (typeof message === "string") assert.equal(error.message, message);
        else assert.match(error.message, message);
        if (param !== undefined) assert.equal(error.param, param);
      });
    }
    assert.deepEqual(service.aborted, []);
  });
});

Deno.test("null and neutral values of unsupported fields are accepted", () =>
  withServer({}, async ({ post }) => {
    const neutral = {
      prompt: "a",
      n: 1,
      best_of: 1,
      suffix: null,
      logit_bias: {},
      use_beam_search: false,
      length_penalty: 1.0,
      early_stopping: false,
      response_format: { type: "text" },
      tool_choice: "none",
      modalities: ["text"],
      temperature: null,
      stop: null,
      some_future_field: null,
      __proto__: {},
    };
    assert.equal((await post("/v1/completions", neutral)).status, 200);
  }));

const routes = {
  "/v1/completions": { prompt: "a" },
  "/v1/chat/completions": { messages: [{ role: "user", content: "a" }] },
  "/generate": { prompt: "a" },
  "/generate_benchmark": { prompt: "a" },
};

for (const [path, body] of Object.entries(routes)) {
  Deno.test(`${path}: fields without an effect are accepted, unknown ones refused, the nearest named`, () =>
    withServer({}, async ({ post }) => {
      const accepted = {
        user: "me",
        metadata: { a: "b" },
        store: false,
        service_tier: "auto",
        parallel_tool_calls: true,
        reasoning_effort: "low",
        safety_identifier: "me",
        // What vLLM's benchmark clients send.
        ...{ n: 1, best_of: 1, use_beam_search: false, temperature: 0, top_p: 1, max_tokens: 2 },
        ...{ ignore_eos: true, stream: false },
      };
      assert.equal((await post(path, { ...body, ...accepted })).status, 200);
      for (
        const [field, advice] of [
          ["max_token", "did you mean max_tokens?"],
          ["repition_penalty", "did you mean repetition_penalty?"],
          ["some_future_field", "leave it out."],
          ["__proto__", "leave it out."],
          ["x".repeat(1000), "leave it out."],
        ]
      ) {
        // Written out: an object's literal would have no such field as the fourth.
        const text = `{${JSON.stringify(field)}: 3, ${JSON.stringify(body).slice(1)}`;
        const { status, json: { error } } = await post(path, text);
        const name = field.slice(0, 100);
        assert.equal(status, 400);
        assert.equal(error.message, `${name} is no field of this request; ${advice}`);
        assert.equal(error.param, name);
      }
    }));
}

for (const path of ["/v1/completions", "/v1/chat/completions"] as const) {
  Deno.test(`${path}: unknown stream options are refused, the nearest named`, () =>
    withServer({}, async ({ post }) => {
      const ask = (options: object) =>
        post(path, { ...routes[path], stream: true, stream_options: options });
      const hints = { include_obfuscation: false, continuous_usage_stats: true, some_future: null };
      assert.equal((await ask({ include_usage: true, ...hints })).status, 200);
      const { status, json: { error } } = await ask({ include_usages: true });
      assert.equal(status, 400);
      assert.equal(
        error.message,
        "stream_options.include_usages is no field of this request; did you mean include_usage?",
      );
      assert.equal(error.param, "stream_options.include_usages");
    }));
}

Deno.test("messages: any role that a template may know, and fields without an effect, are accepted", () =>
  withServer({}, async ({ post }) => {
    const withoutEffect = {
      tool_calls: [],
      tool_call_id: "call-1",
      refusal: null,
      audio: { id: "audio-1" },
      function_call: { name: "f", arguments: "" },
      annotations: [],
      reasoning_content: "hm",
      some_future_field: null,
    };
    const content = [{ type: "text", text: "a", cache_control: { type: "ephemeral" } }];
    const messages = [
      { role: "assistant", content: "a", name: "me", ...withoutEffect },
      { role: "ipython", content },
    ];
    const { status, text } = await post("/v1/chat/completions", { messages });
    assert.equal(status, 200, text);
  }));

Deno.test("routes, methods and content types that are not there", () =>
  withServer({}, async ({ url, post }) => {
    const unknown = await post("/v1/complete", {});
    assert.equal(unknown.status, 404);
    assert.match(
      unknown.json.error.message,
      /There is no route "\/v1\/complete"; there are GET \/, .*GET \/v1\/models\/{id}.*POST \/v1\/chat\/completions\./,
    );
    const method = await fetch(`${url}/v1/completions`);
    assert.equal(method.status, 405);
    assert.equal(method.headers.get("allow"), "POST");
    const { error } = await method.json();
    assert.equal(error.message, "/v1/completions takes POST, not GET.");
    const del = await fetch(`${url}/health`, { method: "DELETE" });
    assert.equal(del.headers.get("allow"), "GET, HEAD");
    await del.body?.cancel();

    const form = await post("/v1/completions", "prompt=a", {
      "content-type": "application/x-www-form-urlencoded",
    });
    assert.equal(form.status, 415);
    assert.equal(
      form.json.error.message,
      'Content-Type is "application/x-www-form-urlencoded"; send the request as "application/json".',
    );
    const zipped = await post("/generate", { prompt: "a" }, { "content-encoding": "zstd" });
    assert.equal(zipped.status, 415);
    assert.match(zipped.json.error.message, /Content-Encoding is "zstd"; send .* uncompressed/);
    const charset = await post("/v1/completions", { prompt: "a" }, {
      "content-type": "Application/JSON; charset=utf-8",
    });
    assert.equal(charset.status, 200);
    const latin = await post("/v1/completions", { prompt: "a" }, {
      "content-type": "application/json; charset=latin1",
    });
    assert.equal(latin.status, 415);
    assert.equal(
      latin.json.error.message,
      'Content-Type is "application/json; charset=latin1"; send the request as ' +
        '"application/json" in UTF-8.',
    );
  }));

Deno.test("a second Content-Type is refused", () =>
  withServer({}, async ({ server }) => {
    const connection = await Deno.connect(server.address);
    const type = "Content-Type: application/json\r\n";
    const head = `POST /v1/completions HTTP/1.1\r\nHost: x\r\n${type}${type}Connection: close\r\n`;
    const body = '{"prompt": "a"}';
    await connection.write(
      new TextEncoder().encode(`${head}Content-Length: ${body.length}\r\n\r\n${body}`),
    );
    const answer = await new Response(connection.readable).text();
    assert.match(
      answer,
      /^HTTP\/1.1 415 [^]*There are 2 Content-Type headers; send the request as/,
    );
  }));

Deno.test("binary in the prompt: bytes that are no UTF-8 are refused, control characters are text", () =>
  withServer({}, async ({ url, post }) => {
    const bytes = new Uint8Array([
      ...new TextEncoder().encode('{"prompt": "'),
      0xff,
      0x80,
      0x22,
      0x7d,
    ]);
    const response = await fetch(`${url}/v1/completions`, { method: "POST", body: bytes });
    assert.equal(response.status, 400);
    assert.match((await response.json()).error.message, /not valid UTF-8/);
    const controls = "\0\x01\x1b\u{10ffff}";
    const { json } = await post("/v1/completions", { prompt: controls, echo: true });
    assert.equal(json.choices[0].text, controls + "Hello, world");
  }));

Deno.test("10 MB of JSON are refused, with a declared length and without one", () =>
  withServer({}, async ({ url, service }) => {
    const body = JSON.stringify({ prompt: "x".repeat(10_000_000) });
    const chunked = new Blob([body]).stream();
    for (const sent of [body, chunked]) {
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: sent,
      });
      assert.equal(response.status, 413);
      const { error } = await response.json();
      assert.equal(
        error.message,
        "The request body is larger than 65536 bytes (--max-body-bytes). Send less.",
      );
    }
    assert.equal(service.requests.length, 0);
  }));

Deno.test("large requests share a bound, and leave room for small ones", () => {
  const limits = { maxIncomingBytes: 2 ** 20, freeIncomingBytes: 1000 };
  const options = { maxBodyBytes: 2 * 2 ** 20 };
  return withServer({ limits, options }, async ({ post, server }) => {
    const large = async () => await post("/generate", { prompt: "x".repeat(2 ** 20 + 2000) });
    const { status, headers, json } = await large();
    assert.equal(status, 429);
    assert.equal(headers.get("retry-after"), "2");
    assert.match(json.error.message, /take all of the 1 MiB that there are for them\. Send/);

    // One that is never finished takes nearly all of it.
    using slow = await Deno.connect(server.address);
    const head = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n";
    const writer = slow.writable.getWriter();
    await writer.write(new TextEncoder().encode(`${head}{"prompt":"${"x".repeat(2 ** 20)}`));
    const middle = async () => (await post("/generate", { prompt: "x".repeat(3000) })).status;
    while (await middle() !== 429) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal((await post("/generate", { prompt: "x" })).status, 200);
    writer.releaseLock();
  });
});

Deno.test("a full service answers 429 with Retry-After, an unavailable one 503", () =>
  withServer({ options: { maxQueuedRequests: 2 } }, async ({ post, service }: Harness) => {
    const waiting: (() => void)[] = [];
    service.generate = (_request, emit) => {
      const finish = { reason: "stop" as const, stopReason: null };
      waiting.push(() => emit({ text: "done", tokenIds: [1], finish }));
    };
    const first = post("/v1/completions", { prompt: ["a", "b"] });
    await until(() => waiting.length >= 2);
    const refused = await post("/generate", { prompt: "c" });
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get("retry-after"), "1");
    assert.equal(refused.json.error.code, "overloaded");
    assert.match(refused.json.error.message, /The service is full: 2 of at most 2 requests/);
    const tooMany = await post("/v1/completions", { prompt: ["a", "b", "c"] });
    assert.equal(tooMany.status, 400);
    assert.match(tooMany.json.error.message, /The batch has 3 prompts; at most 2/);
    for (const finish of waiting) finish();
    assert.equal((await first).status, 200);

    service.admit = () => {
      throw new OverloadedError("The queues are full.", 2.5);
    };
    const queue = await post("/generate", { prompt: "a" });
    assert.equal(queue.status, 429);
    assert.equal(queue.headers.get("retry-after"), "3");
    service.admit = () => {
      throw new UnavailableError("No instance is alive.");
    };
    const gone = await post("/generate", { prompt: "a" });
    assert.equal(gone.status, 503);
    assert.equal(gone.json.error.message, "No instance is alive.");
    service.admit = () => {
      throw new TypeError("a defect");
    };
    assert.equal((await post("/generate", { prompt: "a" })).status, 500);
  }));

Deno.test("when one prompt of a batch is refused the others are aborted", () =>
  withServer({}, async ({ post, service }) => {
    service.generate = () => {};
    const { status, json } = await post("/v1/completions", { prompt: [[1], [5000]] });
    assert.equal(status, 400);
    assert.match(json.error.message, /token id 5000/);
    assert.deepEqual(service.aborted, [service.requests[0].requestId]);
  }));

Deno.test("an instance's error has the status of its kind", () =>
  withServer({}, async ({ post, service }) => {
    const failures: [ErrorRecord | undefined, status: number, retryAfter: string | null][] = [
      [{ kind: "unavailable", message: "the instance is gone" }, 503, "1"],
      [{ kind: "overloaded", message: "its queue is full", retryAfterSeconds: 7 }, 429, "7"],
      [{ kind: "invalid_request", message: "it never fits", param: "prompt" }, 400, null],
      [{ kind: "internal", message: "a defect" }, 500, null],
      [undefined, 500, null],
    ];
    for (const [error, status, retryAfter] of failures) {
      service.generate = (_request, emit) =>
        emit({ text: "", tokenIds: [], finish: { reason: "error", stopReason: null, error } });
      const answer = await post("/v1/completions", { prompt: "a" });
      assert.equal(answer.status, status);
      assert.equal(answer.headers.get("retry-after"), retryAfter);
      assert.equal(answer.json.error.param, error?.param ?? null);
      assert.equal(
        answer.json.error.message,
        error?.message ?? "The request failed in its instance.",
      );
    }
  }));
