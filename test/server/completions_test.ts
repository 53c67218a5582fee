import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import OpenAI from "openai";
import { speak } from "./fake_text_service.ts";
import { type Json, parseEvents, withServer } from "./harness.ts";

Deno.test("a completion has OpenAI's form with vLLM's stop_reason", () =>
  withServer({}, async ({ post, service }) => {
    const { status, json } = await post("/v1/completions", {
      model: "fake",
      prompt: "abc",
      temperature: 0.5,
      max_tokens: 7,
      top_k: 3,
      min_p: 0.1,
      repetition_penalty: 1.1,
      stop: "x",
      seed: 4,
      ignore_eos: true,
      user: "someone",
    });
    assert.equal(status, 200);
    assert.match(json.id, /^cmpl-[0-9a-f]{32}$/);
    assert.equal(typeof json.created, "number");
    delete json.id;
    delete json.created;
    assert.deepEqual(json, {
      object: "text_completion",
      model: "fake",
      choices: [{
        index: 0,
        text: "Hello, world",
        logprobs: null,
        finish_reason: "stop",
        stop_reason: null,
      }],
      usage: { prompt_tokens: 3, total_tokens: 6, completion_tokens: 3 },
    });
    const [request] = service.requests;
    assert.deepEqual(request.prompt, { text: "abc" });
    assert.deepEqual(request.sampling, {
      maxTokens: 7,
      temperature: 0.5,
      topK: 3,
      minP: 0.1,
      repetitionPenalty: 1.1,
      seed: 4,
      ignoreEos: true,
    });
    assert.deepEqual(request.text, {
      stop: ["x"],
      includeStopStrInOutput: false,
      skipSpecialTokens: true,
      spacesBetweenSpecialTokens: true,
      detokenize: true,
    });
  }));

Deno.test("batches of strings and of token arrays give a choice per prompt", () =>
  withServer({}, async ({ post }) => {
    const texts = await post("/v1/completions", { prompt: ["a", "bc"], echo: true, max_tokens: 1 });
    assert.deepEqual(texts.json.choices.map((it: Json) => [it.index, it.text, it.finish_reason]), [
      [0, "aHello", "length"],
      [1, "bcHello", "length"],
    ]);
    assert.deepEqual(texts.json.usage, {
      prompt_tokens: 3,
      total_tokens: 5,
      completion_tokens: 2,
    });
    const tokens = await post("/v1/completions", { prompt: [[65, 66], [67]], echo: true });
    assert.deepEqual(tokens.json.choices.map((it: Json) => it.text), [
      "ABHello, world",
      "CHello, world",
    ]);
    const single = await post("/v1/completions", { prompt: [65, 66], echo: true });
    assert.equal(single.json.choices[0].text, "ABHello, world");
  }));

Deno.test("log probabilities of an echoed completion run over prompt and output", () =>
  withServer({}, async ({ post, service }) => {
    service.generate = speak(["Hi", "!"]);
    const body = { prompt: "ab", echo: true, logprobs: 2 };
    const { json } = await post("/v1/completions", body);
    const expected = {
      text_offset: [0, 1, 2, 4],
      token_logprobs: [null, -0.5, -0.5, -0.5],
      tokens: ["a", "b", "Hi", "!"],
      top_logprobs: [
        null,
        { b: -0.5, "?": -9999 },
        { Hi: -0.5, "?": -9999 },
        { "!": -0.5, "?": -9999 },
      ],
    };
    assert.deepEqual(json.choices[0].logprobs, expected);

    const { events } = parseEvents((await post("/v1/completions", { ...body, stream: true })).text);
    const streamed = events.map((event) => event.choices[0].logprobs);
    for (const key of Object.keys(expected) as (keyof typeof expected)[]) {
      assert.deepEqual(streamed.flatMap((part) => part[key]), expected[key]);
    }
  }));

Deno.test("echo with max_tokens 0 scores the prompt", () =>
  withServer({}, async ({ post, service }) => {
    const body = { prompt: "ab", echo: true, logprobs: 0, max_tokens: 0 };
    const { json } = await post("/v1/completions", body);
    assert.equal(json.choices[0].text, "ab");
    assert.deepEqual(json.choices[0].logprobs.tokens, ["a", "b"]);
    assert.equal(json.choices[0].finish_reason, "length");
    assert.equal(json.usage.completion_tokens, 0);
    assert.equal(service.requests[0].sampling.maxTokens, 1);
    const { events } = parseEvents((await post("/v1/completions", { ...body, stream: true })).text);
    assert.equal(events.map((event) => event.choices[0].text).join(""), "ab");
  }));

Deno.test("prompt_logprobs come in vLLM's form", () =>
  withServer({}, async ({ post }) => {
    const { json } = await post("/v1/completions", { prompt: "ab", prompt_logprobs: 1 });
    assert.deepEqual(json.choices[0].prompt_logprobs, [
      null,
      { 1: { logprob: -0.5, rank: 1, decoded_token: "b" } },
    ]);
  }));

Deno.test("a stream has a chunk per output, then usage when asked for, then [DONE]", () =>
  withServer({}, async ({ post, service }) => {
    service.generate = speak(["Hé", "", 'l"lo\n']);
    const { text, headers } = await post("/v1/completions", {
      prompt: "abc",
      stream: true,
      stream_options: { include_usage: true },
    });
    assert.equal(headers.get("content-type"), "text/event-stream; charset=utf-8");
    const { events, done } = parseEvents(text);
    assert.ok(done);
    assert.equal(new Set(events.map((event) => event.id)).size, 1);
    assert.deepEqual(
      events.map(({ choices, usage }) => ({
        choices: choices.map((it: Json) => [it.index, it.text, it.finish_reason]),
        usage,
      })),
      [
        { choices: [[0, "Hé", null]], usage: null },
        { choices: [[0, 'l"lo\n', "stop"]], usage: null },
        { choices: [], usage: { prompt_tokens: 3, total_tokens: 6, completion_tokens: 3 } },
      ],
    );
  }));

Deno.test("a streamed batch interleaves choices; each begins with its echo", () =>
  withServer({}, async ({ post }) => {
    const { text } = await post("/v1/completions", {
      prompt: ["x", "y"],
      stream: true,
      echo: true,
    });
    const { events, done } = parseEvents(text);
    assert.ok(done);
    const texts = ["", ""];
    for (const { choices: [choice] } of events) texts[choice.index] += choice.text;
    assert.deepEqual(texts, ["xHello, world", "yHello, world"]);
  }));

Deno.test("without a tokenizer answers carry token ids", () =>
  withServer({}, async ({ post, service }) => {
    service.model = { ...service.model, hasTokenizer: false };
    const whole = await post("/v1/completions", { prompt: [1, 2] });
    assert.deepEqual(whole.json.choices[0].token_ids, [0, 1, 2]);
    const streamed = await post("/v1/completions", { prompt: [1, 2], stream: true });
    const { events } = parseEvents(streamed.text);
    assert.deepEqual(events.flatMap((event) => event.choices[0].token_ids), [0, 1, 2]);
    const refused = await post("/v1/completions", { prompt: "text" });
    assert.match(refused.json.error.message, /no tokenizer/);
  }));

Deno.test("the openai client completes, streams and lists models", () =>
  withServer({}, async ({ url, service }) => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const whole = await client.completions.create({ model: "fake", prompt: "a" });
    assert.equal(whole.choices[0].text, "Hello, world");
    assert.equal(whole.usage?.completion_tokens, 3);

    const stream = await client.completions.create({
      model: "org/alias",
      prompt: "a",
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.text ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, "Hello, world");
    assert.equal(usage?.total_tokens, 4);

    const models = await client.models.list();
    assert.deepEqual(models.data.map((model) => model.id), ["fake", "org/alias"]);
    assert.equal((await client.models.retrieve("org/alias")).id, "org/alias");

    await assert.rejects(
      client.completions.create({ model: "gpt-9", prompt: "a" }),
      (error) =>
        error instanceof OpenAI.NotFoundError && error.code === "model_not_found" &&
        error.param === "model" &&
        error.message === '404 The model "gpt-9" does not exist here; served: fake, org/alias.',
    );

    service.generate = (_request, emit) => {
      emit({ text: "some", tokenIds: [1] });
      emit({
        text: "",
        tokenIds: [],
        finish: {
          reason: "error",
          stopReason: null,
          error: { kind: "unavailable", message: "instance 3 is gone" },
        },
      });
    };
    const failing = await client.completions.create({ model: "fake", prompt: "a", stream: true });
    const seen: string[] = [];
    await assert.rejects(async () => {
      for await (const chunk of failing) seen.push(chunk.choices[0].text);
    }, /instance 3 is gone/);
    assert.deepEqual(seen, ["some"]);
  }));

Deno.test("a batch is encoded over many turns of the event loop, also beside others", () =>
  withServer({
    options: { maxQueuedRequests: 100, maxBodyBytes: 2 ** 20 },
  }, async ({ post, service }) => {
    const charactersOfTurns: number[] = [0];
    service.admit = ({ prompt }) => {
      if (charactersOfTurns.at(-1) === 0) setImmediate(() => charactersOfTurns.push(0));
      charactersOfTurns[charactersOfTurns.length - 1] += "text" in prompt ? prompt.text.length : 0;
    };
    const prompt = Array.from({ length: 40 }, (_, i) => "x".repeat(1000 + i));
    const bodies = [{ prompt }, { prompt }, { prompt: "x".repeat(3000) }];
    const answers = await Promise.all(bodies.map((body) => post("/v1/completions", body)));
    for (const { status } of answers) assert.equal(status, 200);
    // Two shares can fall between two immediates.
    assert.ok(Math.max(...charactersOfTurns) <= 2 * 8192, `${charactersOfTurns}`);
    assert.deepEqual(answers[0].json.choices.map((it: { index: number }) => it.index), [
      ...prompt.keys(),
    ]);
  }));

Deno.test("sequences with many parameters are handed over in many turns of the event loop", () =>
  withServer({ options: { maxQueuedRequests: 100 } }, async ({ post, service }) => {
    const requestsOfTurns: number[] = [0];
    service.admit = () => {
      if (requestsOfTurns.at(-1) === 0) setImmediate(() => requestsOfTurns.push(0));
      requestsOfTurns[requestsOfTurns.length - 1]++;
    };
    const allowed = Array.from({ length: 4000 }, (_, i) => i % 1000);
    const body = { prompt: "a", n: 20, allowed_token_ids: allowed };
    const { status, text } = await post("/v1/completions", body);
    assert.equal(status, 200, text);
    assert.equal(requestsOfTurns.reduce((sum, count) => sum + count), 20);
    // Two in a share, and two shares can fall between two immediates.
    assert.ok(Math.max(...requestsOfTurns) <= 4, `${requestsOfTurns}`);
  }));

Deno.test("prompts behind one that is refused are not encoded", () =>
  withServer({ options: { maxBodyBytes: 2 ** 20 } }, async ({ post, service }) => {
    service.generate = () => {};
    const prompt = [[1, 2], Array(9000).fill(1), "x".repeat(9000), "x".repeat(9000)];
    const { status } = await post("/v1/completions", { prompt });
    assert.equal(status, 400);
    assert.equal(service.requests.length, 2);
    assert.deepEqual(service.aborted, [service.requests[0].requestId]);
  }));

Deno.test("without detokenisation the answer has token ids", () =>
  withServer({}, async ({ post, service }) => {
    const body = { prompt: "ab", detokenize: false };
    const { json } = await post("/v1/completions", body);
    assert.equal(service.requests[0].text.detokenize, false);
    assert.deepEqual(json.choices[0].token_ids, [0, 1, 2]);
    const messages = [{ role: "user", content: "a" }];
    const chat = await post("/v1/chat/completions", { messages, detokenize: false });
    assert.equal(
      chat.json.error.message,
      "detokenize must be true, for a chat is text, got false.",
    );
  }));
