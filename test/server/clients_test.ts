/** What clients of other servers send: it is answered, or refused by name. */
import assert from "node:assert/strict";
import { type Harness, parseEvents, withServer } from "./harness.ts";

const messages = [{ role: "user", content: "hi" }];
const chatPath = "/v1/chat/completions";

async function ok({ post }: Harness, path: string, body: unknown) {
  const answer = await post(path, body);
  assert.equal(answer.status, 200, answer.text);
  return answer;
}

Deno.test("neutral values of known fields pass", () =>
  withServer({}, async (harness) => {
    const neutral = {
      n: 1,
      best_of: 1,
      top_k: 0,
      stop: "",
      priority: 0,
      logit_bias: {},
      bad_words: [],
      logprobs: false,
      seed: null,
      min_p: 0,
      min_tokens: 0,
      repetition_penalty: 1,
      stream_options: null,
      response_format: { type: "text" },
    };
    const none = {
      tools: [{ type: "function", function: { name: "f" } }],
      tool_choice: "none",
      top_logprobs: 0,
    };
    await ok(harness, "/v1/completions", { prompt: "a", ...neutral });
    await ok(harness, "/generate", { prompt: "a", ...neutral });
    await ok(harness, chatPath, { messages, ...neutral, tools: [], tool_choice: "none" });
    await ok(harness, chatPath, { messages, ...neutral, ...none });
    const { sampling, text, priority } = harness.service.requests[0];
    assert.deepEqual([sampling.topK, text.stop, priority], [-1, [], "normal"]);
    const auto = await harness.post(chatPath, { messages, ...none, tool_choice: "auto" });
    assert.equal(auto.status, 400);
    assert.equal(auto.json.error.param, "tools");
  }));

Deno.test("unknown fields are ignored with one warning a name", () =>
  withServer({ options: { unknownFields: "warn" } }, async (harness) => {
    const turns = [{ ...messages[0], extra_body: 1 }, { ...messages[0], extra_body: 2 }];
    for (let i = 0; i < 3; i++) {
      await ok(harness, chatPath, { messages: turns, max_token: 3, mirostat: 2, nothing: null });
    }
    const warnings = harness.log.filter((line) => line.includes("does not know"));
    assert.deepEqual(warnings.map((line) => JSON.parse(line.slice(line.indexOf("{")))), [
      { field: "max_token", hint: "did you mean max_tokens?" },
      { field: "mirostat" },
      { field: "messages[].extra_body" },
    ]);
    const refused = await harness.post(chatPath, { messages, tools: [{}] });
    assert.equal(refused.json.error.param, "tools");
  }));

Deno.test("names of unknown fields take bounded memory and log space", () =>
  withServer({ options: { unknownFields: "warn" } }, async (harness) => {
    const fields = Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`field_${i}`, i]));
    await ok(harness, chatPath, { messages, ...fields });
    assert.equal(harness.log.filter((line) => line.includes("does not know")).length, 256);
  }));

Deno.test("--unknown-fields ignore says nothing", () =>
  withServer({ options: { unknownFields: "ignore" } }, async (harness) => {
    await ok(harness, chatPath, { messages, mirostat: 2 });
    assert.deepEqual(harness.log, []);
  }));

Deno.test("history as clients send it back: null content, ids, reasoning, parts", () =>
  withServer({}, async (harness) => {
    const history = [
      { role: "user", content: [{ type: "text", text: "a" }], id: "msg-1" },
      { role: "assistant", content: null, reasoning_content: "hm", id: "msg-2", refusal: null },
      { role: "assistant", reasoning: "so", tool_calls: [] },
      { role: "user", content: "b" },
    ];
    await ok(harness, chatPath, { messages: history });
    assert.deepEqual(harness.service.requests[0].prompt, {
      messages: [
        { role: "user", content: "a" },
        { role: "assistant", content: "", reasoning_content: "hm" },
        { role: "assistant", content: "", reasoning_content: "so" },
        { role: "user", content: "b" },
      ],
      addGenerationPrompt: true,
    });
    const { json } = await harness.post(chatPath, { messages: [{ role: "user", content: null }] });
    assert.equal(json.error.param, "messages[0].content");
  }));

Deno.test("arguments of the chat template reach it, and --response-role names the answer's role", () =>
  withServer({ options: { responseRole: "model" } }, async (harness) => {
    const body = { messages, chat_template_kwargs: { enable_thinking: false } };
    const { json } = await ok(harness, chatPath, body);
    assert.equal(json.choices[0].message.role, "model");
    const { prompt } = harness.service.requests[0];
    assert.deepEqual("messages" in prompt && prompt.templateArguments, { enable_thinking: false });
  }));

Deno.test("top_logprobs up to 20, whatever --max-logprobs says", () =>
  withServer({}, async (harness) => {
    await ok(harness, chatPath, { messages, logprobs: true, top_logprobs: 20 });
    assert.equal(harness.service.requests[0].sampling.logprobs, 20);
  }));

Deno.test("n answers have seeds that follow each other, and the prompt counts once", () =>
  withServer({}, async (harness) => {
    const chat = (await ok(harness, chatPath, { messages, n: 3, seed: 5, max_tokens: 2 })).json;
    assert.deepEqual(chat.choices.map((it: { index: number }) => it.index), [0, 1, 2]);
    assert.equal(chat.choices[2].message.content, "Hello, ");
    const [{ promptTokens }] = [{ promptTokens: chat.usage.prompt_tokens }];
    assert.deepEqual(chat.usage, {
      prompt_tokens: promptTokens,
      total_tokens: promptTokens + 6,
      completion_tokens: 6,
    });
    const seeds = () => harness.service.requests.splice(0).map(({ sampling }) => sampling.seed);
    assert.deepEqual(seeds(), [5, 6, 7]);

    const batch = { prompt: ["ab", "c"], n: 2, max_tokens: 1, best_of: 2 };
    const completion = (await ok(harness, "/v1/completions", batch)).json;
    assert.deepEqual(completion.choices.map((it: { index: number }) => it.index), [0, 1, 2, 3]);
    assert.equal(completion.usage.prompt_tokens, 3);
    assert.deepEqual(seeds(), [undefined, undefined, undefined, undefined]);

    const last = `{"prompt": "a", "n": 2, "seed": 18446744073709551615}`;
    await ok(harness, "/v1/completions", last);
    assert.deepEqual(seeds(), [2n ** 64n - 1n, 0]);
  }));

Deno.test("a stream of n answers interleaves them, each with its role and its end", () =>
  withServer({}, async (harness) => {
    const { text } = await ok(harness, chatPath, { messages, n: 2, stream: true });
    const { events, done } = parseEvents(text);
    assert.ok(done);
    for (const index of [0, 1]) {
      const own = events.map(({ choices }) => choices[0]).filter((it) => it.index === index);
      assert.equal(own[0].delta.role, "assistant");
      assert.equal(own.map(({ delta }) => delta.content ?? "").join(""), "Hello, world");
      assert.equal(own.at(-1).finish_reason, "stop");
    }
  }));

for (
  const [path, prompt] of [[chatPath, { messages }], ["/v1/completions", { prompt: "hi" }]] as const
) {
  Deno.test(`${path}: continuous_usage_stats puts the usage so far into every chunk`, () =>
    withServer({}, async (harness) => {
      const options = { include_usage: true, continuous_usage_stats: true };
      const body = { ...prompt, stream: true, stream_options: options };
      const { events } = parseEvents((await ok(harness, path, body)).text);
      const counts = events.map(({ usage }) => usage.completion_tokens);
      assert.deepEqual(counts, path === chatPath ? [0, 1, 2, 3, 3] : [1, 2, 3, 3]);
      const without = { ...body, stream_options: { continuous_usage_stats: true } };
      for (const { usage } of parseEvents((await ok(harness, path, without)).text).events) {
        assert.equal(usage, undefined);
      }
    }));
}

Deno.test("logit_bias, allowed_token_ids and bad_words reach the service", () =>
  withServer({}, async (harness) => {
    const body = { logit_bias: { 5: -100, 7: 2.5 }, allowed_token_ids: [5, 7], bad_words: ["x"] };
    for (
      const [path, prompt] of [[chatPath, { messages }], ["/v1/completions", { prompt: "a" }], [
        "/generate",
        { prompt: "a" },
      ]] as const
    ) {
      await ok(harness, path, { ...prompt, ...body });
      const { sampling, badWords } = harness.service.requests.pop()!;
      assert.deepEqual(sampling.logitBias, [[5, -100], [7, 2.5]]);
      assert.deepEqual(sampling.allowedTokenIds, [5, 7]);
      assert.deepEqual(badWords, ["x"]);
    }
  }));

Deno.test("the prompts of a batch share their stop strings and bad words, which are prepared once", () =>
  withServer({ options: { maxQueuedRequests: 100 } }, async (harness) => {
    const shared = { stop: ["a", "b"], bad_words: ["c"], n: 2 };
    await ok(harness, "/v1/completions", { prompt: ["x", "y"], ...shared });
    await ok(harness, chatPath, { messages, ...shared });
    const { requests } = harness.service;
    for (const own of [requests.slice(0, 4), requests.slice(4)]) {
      assert.equal(new Set(own.map(({ text }) => text.stop)).size, 1);
      assert.equal(new Set(own.map(({ badWords }) => badWords)).size, 1);
    }
  }));

Deno.test("more sequences than the service has places are refused before any is made", () =>
  withServer({ options: { maxQueuedRequests: 1024 } }, async (harness) => {
    const { status, json } = await harness.post("/v1/completions", {
      prompt: Array(1024).fill("a"),
      n: 128,
    });
    assert.equal(status, 400);
    assert.match(json.error.message, /^The request asks for 131072 sequences .* at most 1024/);
    assert.equal(harness.service.requests.length, 0);
  }));
