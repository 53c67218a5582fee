import assert from "node:assert/strict";
import { withServer } from "./harness.ts";

Deno.test("/generate answers prompt and output", () =>
  withServer({}, async ({ post, service }) => {
    const { status, json } = await post("/generate", { prompt: "Say: ", max_tokens: 2, top_k: 1 });
    assert.equal(status, 200);
    assert.deepEqual(json, { text: ["Say: Hello, "] });
    assert.deepEqual(service.requests[0].sampling, { maxTokens: 2, topK: 1 });
  }));

Deno.test("/generate streams NUL-separated documents, each with all the text so far", () =>
  withServer({}, async ({ post }) => {
    const { text } = await post("/generate", { prompt: "Say: ", stream: true });
    assert.ok(text.endsWith("\0"));
    assert.deepEqual(text.split("\0").slice(0, -1).map((json) => JSON.parse(json)), [
      { text: ["Say: Hello"] },
      { text: ["Say: Hello, "] },
      { text: ["Say: Hello, world"] },
    ]);
  }));

Deno.test("/generate without detokenisation answers token ids", () =>
  withServer({}, async ({ post, service }) => {
    const { json } = await post("/generate", { prompt: [65], detokenize: false });
    assert.deepEqual(json.token_ids, [[0, 1, 2]]);
    assert.equal(service.requests[0].text.detokenize, false);
  }));

Deno.test("/generate answers the log probabilities that were asked for", () =>
  withServer({}, async ({ post }) => {
    const asked = { prompt: "ab", max_tokens: 2, logprobs: 1 };
    const whole = (await post("/generate", { ...asked, prompt_logprobs: 0 })).json;
    assert.deepEqual(Object.keys(whole), ["text", "logprobs", "prompt_logprobs"]);
    assert.equal(whole.logprobs[0].length, 2);
    assert.deepEqual(whole.logprobs[0][0][1].decoded_token, "Hello");
    assert.equal(whole.prompt_logprobs.length, 2);
    assert.equal(whole.prompt_logprobs[0], null);

    const { text } = await post("/generate", { ...asked, stream: true });
    const documents = text.split("\0").slice(0, -1).map((json) => JSON.parse(json));
    assert.deepEqual(documents.at(-1).logprobs, whole.logprobs);
    const refused = await post("/generate", { ...asked, prompt_logprobs: 0, stream: true });
    assert.equal(refused.json.error.param, "prompt_logprobs");
  }));

Deno.test("/generate_benchmark refuses log probabilities", () =>
  withServer({}, async ({ post }) => {
    const { status, json } = await post("/generate_benchmark", { prompt: "a", logprobs: 0 });
    assert.equal(status, 400);
    assert.equal(json.error.message, "logprobs is not answered by this route; use /generate.");
  }));

Deno.test("/generate_benchmark answers when each token came, and never streams", () =>
  withServer({}, async ({ post, service }) => {
    const { json } = await post("/generate_benchmark", { prompt: "Say: ", stream: true });
    assert.equal(json.request_id, service.requests[0].requestId);
    assert.equal(json.generated_text, "Hello, world");
    assert.equal(json.num_output_tokens_cf, 3);
    const [first, ...rest] = json.per_token_latency;
    assert.equal(first[0], 1_700_000_000);
    assert.deepEqual(rest, [[1_700_000_000.001, 1], [1_700_000_000.002, 1]]);
    const hops = json.per_token_latency_breakdown_dict;
    assert.deepEqual(Object.keys(hops), [
      "step_latency_engine",
      "process_model_outputs_latency",
      "step_postprocess_latency",
      "across_async_put_queue_thread_latency",
      "across_async_put_queue_actor_latency",
      "queue_rpc_latency",
      "background_process_get_queue_latency",
      "generate_benchmark_return_output_latency",
    ]);
    assert.deepEqual([...new Set(Object.values(hops).flat())], []);
    assert.equal(service.requests[0].hopTimestamps, false);
  }));

Deno.test("with --log-request-timestamps /generate_benchmark tells the hops of each token", () =>
  withServer({ options: { logRequestTimestamps: true } }, async ({ post, service }) => {
    const startMs = 1_700_000_000_000;
    service.generate = (request, emit) => {
      assert.ok(request.hopTimestamps);
      const timing = {
        stepMs: 7,
        steppedMs: startMs,
        sentMs: startMs + 1,
        receivedMs: startMs + 3,
      };
      emit({ text: "ab", tokenIds: [1, 2], timesMs: [startMs + 6, startMs + 6], timing });
      const finish = { reason: "length", stopReason: null } as const;
      emit({ text: "", tokenIds: [], timesMs: [], finish });
    };
    const { json } = await post("/generate_benchmark", { prompt: "a" });
    const { generate_benchmark_return_output_latency: last, ...hops } =
      json.per_token_latency_breakdown_dict;
    assert.deepEqual(hops, {
      step_latency_engine: [7, 7],
      process_model_outputs_latency: [0, 0],
      across_async_put_queue_thread_latency: [0, 0],
      across_async_put_queue_actor_latency: [0, 0],
      step_postprocess_latency: [1, 1],
      queue_rpc_latency: [2, 2],
      background_process_get_queue_latency: [3, 3],
    });
    assert.equal(last.length, 2);
    assert.ok(last[0] > 0);
  }));
