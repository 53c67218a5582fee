import assert from "node:assert/strict";
import type { Cluster, OutputSink } from "../../src/core/cluster.ts";
import { LlumnixError, RequestError, UnavailableError } from "../../src/core/errors.ts";
import type {
  GenerateRequest,
  HeldRequest,
  RequestOutput,
} from "../../src/core/protocol/generate.ts";
import type { Prompt, TextOutput, TextParams, TextRequest } from "../../src/frontend/service.ts";
import { createTextService, type TextServiceOptions } from "../../src/frontend/text_service.ts";
import { fixtureTokenizer } from "./fixtures.ts";

const tokenizer = fixtureTokenizer("llama3");
const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
const eos = tokenizer.eosTokenId!;
const [bos] = tokenizer.encode("", { addSpecialTokens: true });

/** A cluster that remembers what it was told and says what the test has it say. */
class ScriptedCluster implements Cluster {
  readonly frontendId = "frontend";
  readonly requests: GenerateRequest[] = [];
  readonly aborted: string[] = [];
  readonly #sinks = new Map<string, OutputSink>();
  failure: Error | null = null;
  /** What `submit` waits for. */
  taken: Promise<void> = Promise.resolve();

  instances() {
    return [];
  }
  isReady() {
    return true;
  }
  submit(request: GenerateRequest, sink: OutputSink): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    this.requests.push(request);
    this.#sinks.set(request.requestId, sink);
    return this.taken;
  }
  /** What `take` finds. */
  held: HeldRequest | null = null;
  readonly takes: [requestId: string, leastTokens: number][] = [];
  take(requestId: string, leastTokens: number): Promise<HeldRequest> {
    this.takes.push([requestId, leastTokens]);
    if (this.held) return Promise.resolve(this.held);
    return Promise.reject(new LlumnixError("not_found", `${requestId} is not held`));
  }
  abort(requestId: string) {
    this.aborted.push(requestId);
  }
  say(requestId: string, output: Partial<RequestOutput>) {
    this.#sinks.get(requestId)!({ requestId, index: 0, tokenIds: [], ...output });
  }
}

const plainText: TextParams = {
  stop: [],
  includeStopStrInOutput: false,
  skipSpecialTokens: true,
  spacesBetweenSpecialTokens: true,
  detokenize: true,
};

function setUp(overrides: Partial<TextServiceOptions> = {}) {
  const cluster = new ScriptedCluster();
  const lines: string[] = [];
  const service = createTextService({
    cluster,
    tokenizer,
    model: {
      names: ["tiny"],
      maxModelLen: 64,
      createdSeconds: 0,
      vocabSize: tokenizer.vocabSize,
      hasTokenizer: true,
      defaultSampling: {},
    },
    eosTokenIds: [7],
    maxLogprobs: 5,
    seed: 0,
    clock: { nowMs: () => 1000, after: () => () => {}, soon: () => {} },
    log: (line) => lines.push(line),
    ...overrides,
  });
  return { cluster, service, lines };
}

function request(fields: Partial<TextRequest> & { stop?: string[] } = {}): TextRequest {
  const { stop, ...rest } = fields;
  return {
    requestId: "r",
    prompt: { text: "hi" },
    sampling: { maxTokens: 16 },
    text: { ...plainText, stop: stop ?? [] },
    ...rest,
  };
}

/** Submits; outputs collect in `outputs`. */
async function start(fields: Parameters<typeof request>[0] = {}, set = setUp()) {
  const outputs: TextOutput[] = [];
  const handle = await set.service.submit(request(fields), (output) => outputs.push(output));
  const say = (output: Partial<RequestOutput>) => set.cluster.say("r", output);
  const text = () => outputs.map((output) => output.text).join("");
  return { ...set, handle, outputs, say, text };
}

Deno.test("text goes in as tokens and comes out as text", async () => {
  const { cluster, handle, outputs, say, text, lines } = await start();
  assert.deepEqual([...cluster.requests[0].promptTokenIds], [bos, ...encode("hi")]);
  assert.equal(handle.promptText, "hi");
  assert.equal(handle.firstToken, "<|begin_of_text|>");
  const ids = encode(" wörld 😀!");
  for (const id of ids) say({ tokenIds: [id] });
  say({ tokenIds: [eos], finish: { reason: "stop" } });
  assert.equal(text(), " wörld 😀!");
  assert.deepEqual(outputs.flatMap((output) => output.tokenIds), [...ids, eos]);
  assert.deepEqual(outputs.at(-1)!.finish, { reason: "stop", stopReason: null });
  assert.deepEqual(lines, [
    `finished request r: stop, ${handle.promptTokenIds.length} prompt and ${
      ids.length + 1
    } output tokens in 0 ms`,
  ]);
});

Deno.test("sampling is resolved with vLLM's defaults", async () => {
  const { cluster } = await start({ sampling: { maxTokens: null } });
  const { seed, ...params } = cluster.requests[0].params;
  assert.ok(Number.isSafeInteger(seed) && seed >= 0);
  assert.deepEqual(params, {
    maxTokens: 64 - cluster.requests[0].promptTokenIds.length,
    minTokens: 0,
    temperature: 1,
    topP: 1,
    topK: -1,
    minP: 0,
    presencePenalty: 0,
    frequencyPenalty: 0,
    repetitionPenalty: 1,
    stopTokenIds: [],
    eosTokenIds: [7, eos],
    ignoreEos: false,
    logprobs: null,
    promptLogprobs: null,
  });
});

Deno.test("the model's defaults come before vLLM's, the client's before both", async () => {
  const set = setUp();
  const model = { ...set.service.model, defaultSampling: { temperature: 0.6, topP: 0.9 } };
  const { cluster } = await start(
    { sampling: { maxTokens: 4, topP: 0.5, topK: undefined, seed: -1 } },
    setUp({ model }),
  );
  const { temperature, topP, topK, seed } = cluster.requests[0].params;
  assert.deepEqual([temperature, topP, topK, seed], [0.6, 0.5, -1, 2 ** 53 - 1]);
});

Deno.test("a temperature of next to nothing is greedy", async () => {
  const { cluster } = await start({ sampling: { maxTokens: 4, temperature: 1e-9, topP: 0.5 } });
  const { temperature, topP } = cluster.requests[0].params;
  assert.deepEqual([temperature, topP], [0, 1]);
});

Deno.test("a 64-bit seed becomes a safe integer that differs wherever the seed does", async () => {
  const { cluster, service } = setUp();
  const given = [2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n, 2n ** 63n, -(2n ** 63n) + 1n];
  for (const [i, seed] of given.entries()) {
    await service.submit(
      request({ requestId: `r${i}`, sampling: { maxTokens: 1, seed } }),
      () => {},
    );
  }
  const seeds = cluster.requests.map(({ params }) => params.seed);
  assert.ok(seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0));
  assert.equal(new Set(seeds).size, given.length);
});

Deno.test("bad words are tokens at the beginning of the output and behind a space", async () => {
  const { cluster } = await start({ badWords: ["word"] });
  assert.deepEqual(cluster.requests[0].params.badWords, [encode("word"), encode(" word")]);
  const without = setUp({ tokenizer: null });
  const asked = { prompt: { tokenIds: [1] }, badWords: ["word"] };
  await assert.rejects(start(asked, without), /bad_words needs a tokenizer/);
});

Deno.test("a request may ask for more log probabilities than --max-logprobs where its API allows", async () => {
  const sampling = { maxTokens: 4, logprobs: 20 };
  await assert.rejects(start({ sampling }), /Cannot request more than 5 logprobs/);
  const { cluster } = await start({ sampling, maxLogprobs: 20 });
  assert.equal(cluster.requests[0].params.logprobs, 20);
});

Deno.test("text is tokenised and back without a request", async () => {
  const { service } = setUp();
  const { tokenIds } = await service.tokenize({ text: "hi there", addSpecialTokens: true });
  assert.deepEqual([...tokenIds], [bos, ...encode("hi there")]);
  assert.match(service.detokenize(tokenIds), /hi there$/);
  assert.throws(() => service.detokenize([tokenizer.vocabSize]), /tokens has the token id/);
});

Deno.test("requests without a seed get different ones, the same in every run", async () => {
  const seeds = async () => {
    const { cluster, service } = setUp();
    await service.submit(request({ requestId: "a" }), () => {});
    await service.submit(request({ requestId: "b" }), () => {});
    return cluster.requests.map((request) => request.params.seed);
  };
  const first = await seeds();
  assert.notEqual(first[0], first[1]);
  assert.deepEqual(await seeds(), first);
});

const refusals: [name: string, fields: Parameters<typeof request>[0], message: RegExp][] = [
  ["temperature NaN", { sampling: { maxTokens: 1, temperature: NaN } }, /temperature .*got NaN/],
  [
    "temperature < 0",
    { sampling: { maxTokens: 1, temperature: -1 } },
    /temperature .*>= 0, got -1/,
  ],
  ["top_p", { sampling: { maxTokens: 1, topP: 0 } }, /top_p must be in \(0, 1\], got 0/],
  ["top_k", { sampling: { maxTokens: 1, topK: 0 } }, /top_k must be -1/],
  ["min_p", { sampling: { maxTokens: 1, minP: 2 } }, /min_p must be in \[0, 1\]/],
  ["presence", { sampling: { maxTokens: 1, presencePenalty: 3 } }, /presence_penalty .*\[-2, 2\]/],
  ["frequency", { sampling: { maxTokens: 1, frequencyPenalty: -3 } }, /frequency_penalty/],
  ["repetition", { sampling: { maxTokens: 1, repetitionPenalty: 0 } }, /repetition_penalty/],
  ["max_tokens 0", { sampling: { maxTokens: 0 } }, /max_tokens must be at least 1.*got 0/],
  ["max_tokens -1", { sampling: { maxTokens: -1 } }, /max_tokens must be at least 1.*got -1/],
  ["min_tokens", { sampling: { maxTokens: 1, minTokens: 2 } }, /min_tokens must be at most .*1/],
  ["min_tokens -1", { sampling: { maxTokens: 1, minTokens: -1 } }, /min_tokens must be an integer/],
  ["logprobs", { sampling: { maxTokens: 1, logprobs: 6 } }, /more than 5 logprobs.*--max-logprobs/],
  ["stop token", { sampling: { maxTokens: 1, stopTokenIds: [9999] } }, /stop_token_ids .*9999/],
  ["seed", { sampling: { maxTokens: 1, seed: 1.5 } }, /seed must be an integer/],
  ["empty stop", { stop: ["a", ""] }, /stop has an empty string/],
  ["stop of no text", { text: { ...plainText, stop: ["a"], detokenize: false } }, /detokenize/],
  ["token id", { prompt: { tokenIds: [1, -1] } }, /prompt has the token id -1/],
  ["large token id", { prompt: { tokenIds: [9999] } }, /ids 0 to 644/],
  ["no tokens", { prompt: { tokenIds: [] } }, /empty/],
  ["empty text", { prompt: { text: "", addSpecialTokens: false } }, /empty/],
  ["long prompt", { prompt: { tokenIds: Array(65).fill(1) } }, /length is 64 tokens.* 65 tokens/],
  ["long text", { prompt: { text: "x".repeat(1e6) } }, /64 tokens. However, .*at least \d+ tokens/],
  [
    "prompt and output",
    { prompt: { tokenIds: Array(60).fill(1) }, sampling: { maxTokens: 5 }, refuseOverlong: true },
    /length is 64 tokens.*requested 65 tokens \(60 in the prompt, 5 in the completion\)/,
  ],
];

for (const [name, fields, message] of refusals) {
  Deno.test(`refuses ${name}`, async () => {
    const { service, cluster } = setUp();
    await assert.rejects(
      service.submit(request(fields), () => {}),
      (error) => error instanceof RequestError && message.test(error.message),
    );
    assert.equal(cluster.requests.length, 0);
  });
}

Deno.test("without refuseOverlong max_tokens is lowered to what fits", async () => {
  const { cluster } = await start({ prompt: { tokenIds: Array(60).fill(1) } });
  assert.equal(cluster.requests[0].params.maxTokens, 4);
});

Deno.test("an id is of one request at a time", async () => {
  const { service, cluster } = setUp();
  const submit = (requestId: string) => service.submit(request({ requestId }), () => {});
  await submit("a");
  await submit("b");
  await assert.rejects(submit("a"), /request with the id a is running/);
  service.abort("a");
  service.abort("a");
  service.abort("unknown");
  assert.deepEqual(cluster.aborted, ["a"]);
  await submit("a");
});

Deno.test("a request that waits for an instance can be aborted", async () => {
  const { service, cluster, lines } = setUp();
  const taken = Promise.withResolvers<void>();
  cluster.taken = taken.promise;
  const outputs: TextOutput[] = [];
  const first = service.submit(request(), (output) => outputs.push(output));
  while (cluster.requests.length === 0) await Promise.resolve();
  service.abort("r");
  assert.deepEqual(cluster.aborted, ["r"]);
  assert.match(lines[0], /^finished request r: abort, /);
  cluster.taken = Promise.resolve();
  await service.submit(request(), () => {});
  taken.reject(new UnavailableError("no instance"));
  await assert.rejects(first, UnavailableError);
  await assert.rejects(service.submit(request(), () => {}), /id r is running/);
  assert.equal(outputs.length, 0);
});

Deno.test("a request that is aborted while its prompt is encoded does not reach the cluster", async () => {
  const { service, cluster, lines } = setUp();
  const submitted = service.submit(request(), () => {});
  service.abort("r");
  await submitted;
  assert.deepEqual(cluster.requests, []);
  assert.match(lines[0], /^finished request r: abort, /);
  await service.submit(request(), () => {});
  assert.equal(cluster.requests.length, 1);
});

Deno.test("what the cluster refuses leaves no trace", async () => {
  const { service, cluster } = setUp();
  cluster.failure = new UnavailableError("no instance");
  await assert.rejects(service.submit(request(), () => {}), UnavailableError);
  cluster.failure = null;
  await service.submit(request(), () => {});
});

Deno.test("a stop string ends the request here and at the cluster", async () => {
  const { cluster, outputs, say, text } = await start({ stop: ["STOP"] });
  const ids = encode("one STOP two");
  say({ tokenIds: ids });
  say({ tokenIds: encode(" three"), finish: { reason: "length" } });
  assert.equal(text(), "one ");
  assert.equal(outputs.length, 1);
  assert.deepEqual(outputs[0].finish, { reason: "stop", stopReason: "STOP" });
  const delivered = outputs[0].tokenIds;
  assert.ok(delivered.length < ids.length, "tokens after the stop string stay back");
  assert.match(tokenizer.decode(delivered, { skipSpecialTokens: true }), /STOP/);
  assert.deepEqual(cluster.aborted, ["r"]);
});

Deno.test("a stop string in the last output needs no abort", async () => {
  const { cluster, outputs, say } = await start({ stop: ["z"] });
  say({ tokenIds: encode("az"), finish: { reason: "length" } });
  assert.equal(outputs[0].finish!.reason, "stop");
  assert.deepEqual(cluster.aborted, []);
});

Deno.test("text that only began a stop string is shown at the end", async () => {
  const { say, text, outputs } = await start({ stop: ["STOP"] });
  for (const id of encode("a ST")) say({ tokenIds: [id] });
  assert.equal(text(), "a ");
  say({ finish: { reason: "length" } });
  assert.equal(text(), "a ST");
  assert.deepEqual(outputs.at(-1)!.finish, { reason: "length", stopReason: null });
});

Deno.test("stop strings do not count before min_tokens", async () => {
  const ids = encode("a.b.");
  const { say, text } = await start({
    stop: ["."],
    sampling: { maxTokens: 16, minTokens: ids.length },
  });
  for (const id of ids) say({ tokenIds: [id] });
  assert.equal(text(), "a.b");
});

Deno.test("the text of a stop token is left out unless asked for", async () => {
  for (const includeStopStrInOutput of [false, true]) {
    const text = { ...plainText, includeStopStrInOutput };
    const set = await start({ text });
    const ids = encode("ab!");
    const finish = { reason: "stop", stopTokenId: ids.at(-1)! } as const;
    set.say({ tokenIds: ids, finish });
    assert.equal(set.text(), includeStopStrInOutput ? "ab!" : "ab");
    assert.deepEqual(set.outputs[0].tokenIds, ids);
    assert.deepEqual(set.outputs[0].finish, { reason: "stop", stopReason: ids.at(-1) });
  }
});

Deno.test("an incomplete character at the end becomes U+FFFD", async () => {
  const { say, outputs } = await start();
  const [first] = encode("\u{10ffff}");
  say({ tokenIds: [first] });
  say({ finish: { reason: "length" } });
  assert.deepEqual(outputs.map((output) => output.text), ["", "\ufffd"]);
});

Deno.test("errors of the engine reach the client as a finish", async () => {
  const { say, outputs } = await start();
  say({ finish: { reason: "error", error: { kind: "internal", message: "out of memory" } } });
  assert.deepEqual(outputs[0].finish, {
    reason: "error",
    stopReason: null,
    error: { kind: "internal", message: "out of memory" },
  });
});

Deno.test("log probabilities carry texts, bytes and offsets", async () => {
  const { say, outputs } = await start({ sampling: { maxTokens: 9, logprobs: 1 } });
  const ids = encode("é€x");
  const logprobs = ids.map((tokenId) => ({
    tokenId,
    logprob: -0.5,
    rank: 1,
    top: [[tokenId, -0.5], [eos, null]] as const,
  }));
  say({ tokenIds: ids, logprobs });
  const out = outputs[0].logprobs!;
  assert.deepEqual(out.flatMap(({ bytes }) => bytes), [...new TextEncoder().encode("é€x")]);
  assert.equal(out.at(-1)!.textOffset, 2);
  assert.equal(out.at(-1)!.token, "x");
  assert.equal(out[0].top[1].token, "<|eot_id|>");
  assert.equal(out[0].top[1].logprob, -Infinity);
});

Deno.test("prompt log probabilities have offsets in the prompt", async () => {
  const { say, outputs, handle } = await start({
    prompt: { text: "ab cd", addSpecialTokens: false },
    sampling: { maxTokens: 9, promptLogprobs: 0 },
  });
  const promptLogprobs = [...handle.promptTokenIds].map((tokenId, position) =>
    position === 0 ? null : { tokenId, logprob: -1, rank: 2, top: [] }
  );
  say({ tokenIds: encode("x"), promptLogprobs });
  const out = outputs[0].promptLogprobs!;
  assert.equal(out[0], null);
  for (const entry of out.slice(1)) {
    assert.ok("ab cd".slice(entry!.textOffset).startsWith(entry!.token));
  }
});

Deno.test("chats are rendered and bos is not doubled", async () => {
  const prompt = { messages: [{ role: "user", content: "hi" }], addGenerationPrompt: true };
  const { cluster, handle } = await start({ prompt });
  const ids = [...cluster.requests[0].promptTokenIds];
  assert.equal(ids.filter((id) => id === bos).length, 1);
  assert.match(handle.promptText, /^<\|begin_of_text\|>.*user.*hi.*assistant/s);
});

Deno.test("chats need a chat template", async () => {
  const { service } = setUp({ tokenizer: fixtureTokenizer("llama2") });
  const prompt = { messages: [{ role: "user", content: "hi" }], addGenerationPrompt: true };
  await assert.rejects(service.submit(request({ prompt }), () => {}), /no chat template/);
});

Deno.test("without a tokenizer tokens go in and out", async () => {
  const set = setUp({ tokenizer: null });
  await assert.rejects(set.service.submit(request(), () => {}), /send the prompt as token ids/);
  await assert.rejects(
    set.service.submit(request({ prompt: { tokenIds: [1] }, stop: ["x"] }), () => {}),
    /without a tokenizer: use stop_token_ids/,
  );
  const { outputs, say, handle } = await start({ prompt: { tokenIds: [1, 2] } }, set);
  say({ tokenIds: [5], logprobs: [{ tokenId: 5, logprob: -1, rank: 1, top: [] }] });
  say({ tokenIds: [6], finish: { reason: "stop" } });
  assert.deepEqual(outputs.map((output) => [output.text, ...output.tokenIds]), [["", 5], ["", 6]]);
  assert.equal(outputs[0].logprobs![0].token, "token_id:5");
  assert.equal(handle.promptText, "");
  assert.equal(handle.firstToken, "token_id:1");
});

Deno.test("the text of a token prompt is decoded when asked for", async () => {
  const { handle } = await start({ prompt: { tokenIds: [bos, ...encode("hello")] } });
  assert.equal(handle.promptText, "hello");
});

Deno.test("tokens carry their time only if asked", async () => {
  const plain = await start();
  plain.say({ tokenIds: [1, 2] });
  assert.equal(plain.outputs[0].timesMs, undefined);
  const timed = await start({ timestamps: true });
  timed.say({ tokenIds: [1, 2] });
  assert.deepEqual(timed.outputs[0].timesMs, [1000, 1000]);
});

Deno.test("a prompt that is too long is told by the field that holds it", async () => {
  const content = "x".repeat(5000);
  const prompts: [Prompt, field: string][] = [
    [{ text: content }, "prompt"],
    [{ messages: [{ role: "user", content }], addGenerationPrompt: true }, "messages"],
    [
      { messages: [{ role: "user", content: "x ".repeat(40) }], addGenerationPrompt: true },
      "messages",
    ],
  ];
  for (const [prompt, field] of prompts) {
    const { service } = setUp();
    await assert.rejects(service.submit(request({ prompt }), () => {}), (error) => {
      assert.ok(error instanceof RequestError);
      assert.match(error.message, /64 tokens\. However/);
      assert.equal(error.param, field);
      return true;
    });
  }
});

/** Outputs of a run, and what its client has after each. */
interface Piece {
  readonly text: string;
  /** Tokens so far, and one more with the finish. */
  readonly position: number;
  readonly finish: TextOutput["finish"];
}

function piecesOf(outputs: readonly TextOutput[]): Piece[] {
  let text = "", position = 0;
  return outputs.map((output) => {
    text += output.text;
    position += output.tokenIds.length + (output.finish ? 1 : 0);
    return { text, position, finish: output.finish };
  });
}

const eagerClock = { nowMs: () => 1000, after: () => () => {}, soon: queueMicrotask };

/** Resumes a request of which `numHeld` of these tokens are held; the cluster produces the rest. */
async function resume(
  ids: readonly number[],
  resumeAfter: number,
  numHeld: number,
  fields: Parameters<typeof request>[0],
): Promise<{ outputs: TextOutput[]; cluster: ScriptedCluster }> {
  // Outputs of the cluster come before this server has handed out what was held.
  const later: (() => void)[] = [];
  const set = setUp({ clock: { ...eagerClock, soon: (action) => later.push(action) } });
  const isWhole = numHeld === ids.length;
  set.cluster.held = {
    tokenIds: ids.slice(0, numHeld),
    ...(isWhole && { finish: { reason: "stop" } }),
    ...{ seed: 11, arrivalMs: 5, epoch: 65536 },
  };
  const outputs: TextOutput[] = [];
  await set.service.submit(request({ ...fields, resumeAfter }), (output) => outputs.push(output));
  const first = set.cluster.requests[0]?.outputTokenIds.length ?? ids.length;
  for (let index = first; index < ids.length && !outputs.at(-1)?.finish; index++) {
    const isLast = index === ids.length - 1;
    set.cluster.say("r", {
      index,
      tokenIds: [ids[index]],
      ...(isLast && { finish: { reason: "stop" } }),
    });
  }
  for (const action of later) action();
  return { outputs, cluster: set.cluster };
}

Deno.test("a resumed request goes on with the same text, wherever it broke off", async () => {
  const ids = [...encode(" wörld 😀 and STOP 文字 here"), eos];
  const variants = [{}, { stop: ["STOP"] }, { stop: ["D", "here!", "P 文"] }].flatMap((fields) => [
    fields,
    { ...fields, text: { ...plainText, ...fields, includeStopStrInOutput: true } },
  ]);
  for (const fields of variants) {
    const quiet = await start(fields);
    for (const [index, id] of ids.entries()) {
      const isLast = index === ids.length - 1;
      quiet.say({ index, tokenIds: [id], ...(isLast && { finish: { reason: "stop" } }) });
    }
    const pieces = piecesOf(quiet.outputs);
    const whole = pieces.at(-1)!;
    for (const { text, position } of [{ text: "", position: 0 }, ...pieces]) {
      for (let numHeld = Math.min(position, ids.length); numHeld <= ids.length; numHeld++) {
        const { outputs } = await resume(ids, position, numHeld, fields);
        const fresh = outputs.filter(({ isRepeated }) => !isRepeated);
        const where = `${JSON.stringify(fields)} after ${position}, ${numHeld} held`;
        assert.equal(text + fresh.map((output) => output.text).join(""), whole.text, where);
        assert.deepEqual(outputs.at(-1)!.finish, whole.finish, where);
        assert.equal(piecesOf(outputs).at(-1)!.position, whole.position, where);
        if (position === whole.position) assert.deepEqual(fresh, [], where);
      }
    }
  }
});

Deno.test("a resumed request keeps its seed and its place, and only its missing tokens are computed", async () => {
  const ids = [...encode("one two three"), eos];
  const { cluster, outputs } = await resume(ids, 2, 3, { holdMs: 60_000 });
  const [{ outputTokenIds, params, arrivalMs, epoch, holdMs }] = cluster.requests;
  assert.deepEqual(outputTokenIds, ids.slice(0, 3));
  assert.deepEqual([params.seed, arrivalMs, epoch, holdMs], [11, 5, 65536, 60_000]);
  assert.deepEqual(cluster.takes, [["r", 1]]);
  assert.deepEqual(outputs.map(({ tokenIds, isRepeated }) => [tokenIds.length, isRepeated]), [
    [2, true],
    [1, undefined],
    ...ids.slice(3).map(() => [1, undefined]),
  ]);
});

Deno.test("log probabilities are not held: those that the client lacks are computed again", async () => {
  const ids = encode("one two three four");
  const { cluster } = await resume(ids, 2, ids.length, {
    sampling: { maxTokens: 16, logprobs: 1 },
  });
  assert.deepEqual(cluster.requests[0].outputTokenIds, ids.slice(0, 2));
});

Deno.test("a request that is not held is not resumed, and leaves nothing", async () => {
  const { service, cluster } = setUp();
  const submit = () => service.submit(request({ resumeAfter: 3 }), () => {});
  for (let i = 0; i < 2; i++) await assert.rejects(submit, /r is not held/);
  assert.deepEqual(cluster.requests, []);
});

Deno.test("a request that this server still runs gives way to its own resumption", async () => {
  const { service, cluster, outputs, say } = await start({}, setUp({ clock: eagerClock }));
  const ids = encode("one two three");
  say({ tokenIds: ids.slice(0, 1) });
  cluster.held = { tokenIds: ids.slice(0, 1), seed: 1, arrivalMs: 2, epoch: 65536 };
  const resumed: TextOutput[] = [];
  await service.submit(request({ resumeAfter: 0 }), (output) => resumed.push(output));
  await Promise.resolve();
  assert.deepEqual(cluster.aborted, ["r"]);
  assert.equal(outputs.at(-1)!.finish?.error?.kind, "conflict");
  cluster.say("r", { index: 1, tokenIds: ids.slice(1), finish: { reason: "length" } });
  assert.equal(resumed.map(({ text }) => text).join(""), "one two three");
  assert.equal(outputs.length, 2);
});

Deno.test("a resumption takes the place of one whose prompt is still encoded", async () => {
  const { service, cluster } = setUp({ clock: eagerClock });
  const ids = encode("one two three");
  cluster.held = { tokenIds: ids.slice(0, 1), seed: 1, arrivalMs: 2, epoch: 65536 };
  const resumed: TextOutput[] = [];
  const resume = () =>
    service.submit(request({ resumeAfter: 0 }), (output) => resumed.push(output));
  const first = resume().then(() => null, (error) => error);
  await resume();
  assert.equal((await first)?.kind, "conflict");
  assert.deepEqual(cluster.aborted, []);
  assert.equal(cluster.requests.length, 1);
  await Promise.resolve();
  cluster.say("r", { index: 1, tokenIds: ids.slice(1), finish: { reason: "length" } });
  assert.equal(resumed.map(({ text }) => text).join(""), "one two three");
});
