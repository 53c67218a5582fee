import assert from "node:assert/strict";
import OpenAI from "openai";
import { speak } from "./fake_text_service.ts";
import { parseEvents, withServer } from "./harness.ts";

const messages = [
  { role: "system", content: "Be brief." },
  {
    role: "user",
    name: "ann",
    content: [{ type: "text", text: "a" }, { type: "text", text: "b" }],
  },
];

Deno.test("a chat completion has OpenAI's form", () =>
  withServer({}, async ({ post, service }) => {
    const { status, json } = await post("/v1/chat/completions", {
      model: "org/alias",
      messages,
      max_tokens: 9,
      max_completion_tokens: 2,
      logprobs: true,
      top_logprobs: 1,
    });
    assert.equal(status, 200);
    assert.match(json.id, /^chatcmpl-[0-9a-f]{32}$/);
    delete json.id;
    delete json.created;
    const logprob = (token: string) => {
      const entry = { token, logprob: -0.5, bytes: [...new TextEncoder().encode(token)] };
      return { ...entry, top_logprobs: [entry] };
    };
    assert.deepEqual(json, {
      object: "chat.completion",
      model: "org/alias",
      choices: [{
        index: 0,
        message: { role: "assistant", content: "Hello, " },
        logprobs: { content: [logprob("Hello"), logprob(", ")] },
        finish_reason: "length",
        stop_reason: null,
      }],
      usage: { prompt_tokens: 26, total_tokens: 28, completion_tokens: 2 },
    });
    assert.deepEqual(service.requests[0].prompt, {
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "a\nb", name: "ann" },
      ],
      addGenerationPrompt: true,
    });
    assert.equal(service.requests[0].sampling.maxTokens, 2);
  }));

Deno.test("without max_tokens a chat may use all that fits", () =>
  withServer({}, async ({ post, service }) => {
    await post("/v1/chat/completions", { messages });
    assert.equal(service.requests[0].sampling.maxTokens, null);
  }));

Deno.test("a chat stream begins with the role and ends with reason, usage and [DONE]", () =>
  withServer({}, async ({ post }) => {
    const { text } = await post("/v1/chat/completions", {
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const { events, done } = parseEvents(text);
    assert.ok(done);
    assert.deepEqual(events.map(({ object, choices, usage }) => ({ object, choices, usage })), [
      chunk({ role: "assistant", content: "" }),
      chunk({ content: "Hello" }),
      chunk({ content: ", " }),
      chunk({ content: "world" }, { finish_reason: "stop", stop_reason: null }),
      {
        object: "chat.completion.chunk",
        choices: [],
        usage: { prompt_tokens: 26, total_tokens: 29, completion_tokens: 3 },
      },
    ]);

    function chunk(delta: unknown, finish: object = { finish_reason: null }) {
      const choices = [{ index: 0, delta, logprobs: null, ...finish }];
      return { object: "chat.completion.chunk", choices, usage: null };
    }
  }));

Deno.test("echo puts the last message before the answer when it has the answer's role", () =>
  withServer({}, async ({ post }) => {
    const started = [...messages, { role: "assistant", content: "Well: " }];
    const body = { messages: started, echo: true, add_generation_prompt: false };
    const whole = await post("/v1/chat/completions", body);
    assert.equal(whole.json.choices[0].message.content, "Well: Hello, world");
    const streamed = await post("/v1/chat/completions", { ...body, stream: true });
    const { events } = parseEvents(streamed.text);
    const content = events.map((event) => event.choices[0].delta.content ?? "").join("");
    assert.equal(content, "Well: Hello, world");
    const other = await post("/v1/chat/completions", { messages, echo: true });
    assert.equal(other.json.choices[0].message.content, "Hello, world");
  }));

Deno.test("the openai client chats, whole and streaming", () =>
  withServer({}, async ({ url, service }) => {
    service.generate = speak(["Grüß", " ", "dich 👋"]);
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const whole = await client.chat.completions.create({
      model: "fake",
      messages: [{ role: "user", content: "Hi" }],
      logprobs: true,
    });
    assert.equal(whole.choices[0].message.content, "Grüß dich 👋");
    assert.deepEqual(whole.choices[0].logprobs?.content?.[0].top_logprobs, []);

    const stream = client.chat.completions.stream({
      model: "fake",
      messages: [{ role: "user", content: "Hi" }],
      stream_options: { include_usage: true },
    });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, "Grüß dich 👋");
    assert.equal(final.choices[0].finish_reason, "stop");
    assert.equal(final.usage?.completion_tokens, 3);
  }));
