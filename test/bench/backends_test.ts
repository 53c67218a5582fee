import assert from "node:assert/strict";
import { generateBenchmark } from "../../src/bench/backends/generate_benchmark.ts";
import { chat, completions } from "../../src/bench/backends/openai.ts";
import type { Backend } from "../../src/bench/backends/backend.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;

/** Reads an answer that arrives in pieces of three bytes; tells its facts and the number of tokens. */
function read(backend: Backend, text: string) {
  let tokens = 0;
  const times: number[] = [];
  const reader = backend.read((count, atMs) => {
    tokens += count;
    if (atMs !== undefined) times.push(atMs);
  }, 1000);
  const all = bytes(text);
  for (let at = 0; at < all.length; at += 3) reader.push(all.subarray(at, at + 3));
  return { facts: reader.end(), tokens, times };
}

Deno.test("completions: each event with a choice is a token, usage counts", () => {
  const text = event({ choices: [{ text: "grüß", finish_reason: null }] }) +
    ": ping\n\n" +
    event({ choices: [{ text: "", finish_reason: null }] }) + // a special token
    event({ choices: [{ text: " dich", finish_reason: "length" }] }) +
    event({ choices: [], usage: { prompt_tokens: 4, completion_tokens: 5 } }) +
    "data: [DONE]\n\n";
  const { facts, tokens } = read(completions, text);
  assert.deepEqual(facts, { text: "grüß dich", promptTokens: 4, outputTokens: 5 });
  assert.equal(tokens, 3);
});

Deno.test("chat: the event that names the role and the one that only ends are no tokens", () => {
  const text = event({ choices: [{ delta: { role: "assistant", content: "" } }] }) +
    event({ choices: [{ delta: { content: "a" }, finish_reason: null }] }) +
    event({ choices: [{ delta: { reasoning_content: "b" }, finish_reason: null }] }) +
    event({ choices: [{ delta: {}, finish_reason: "stop" }] });
  const { facts, tokens } = read(chat, text);
  assert.deepEqual([facts.text, tokens], ["ab", 2]);
});

Deno.test("an answer whose only token has no text has a token", () => {
  const only = event({ choices: [{ text: "", finish_reason: "length" }] });
  assert.equal(read(completions, only).tokens, 1);
  const opening = event({ choices: [{ delta: { role: "assistant", content: "" } }] });
  const end = event({ choices: [{ delta: {}, finish_reason: "length" }] });
  assert.equal(read(chat, opening + end).tokens, 1);
});

Deno.test("an error in the stream is a failure", () => {
  assert.throws(
    () => read(completions, event({ error: { message: "out of memory" } })),
    /^Error: out of memory$/,
  );
  assert.throws(() => read(completions, "data: {oops\n\n"), /not JSON: \{oops/);
});

Deno.test("generate_benchmark: the server says when each token came", () => {
  const answer = { generated_text: "abc", per_token_latency: [[1, 50], [2, 10], [3, 12]] };
  const { facts, times } = read(generateBenchmark, JSON.stringify(answer));
  assert.deepEqual(facts, { text: "abc", outputTokens: 3 });
  assert.deepEqual(times, [1050, 1060, 1072]);
  assert.throws(() => read(generateBenchmark, "{}"), /no per_token_latency/);
});

Deno.test("bodies have vLLM's fields, and those of --extra-body win", () => {
  const request = {
    ...{ prompt: "hi", promptTokens: 1, outputTokens: 9, recordedMs: null, arrivalMs: 0 },
    priority: "high" as const,
  };
  const settings = { model: "m", ignoreEos: true, logprobs: null, extraBody: { temperature: 1 } };
  assert.deepEqual(completions.body(request, settings), {
    prompt: "hi",
    max_tokens: 9,
    model: "m",
    temperature: 1,
    stream: true,
    stream_options: { include_usage: true },
    ignore_eos: true,
    priority: "high",
  });
  const { messages, max_completion_tokens } = chat.body(request, settings);
  assert.deepEqual([messages, max_completion_tokens], [[{ role: "user", content: "hi" }], 9]);
});
