import assert from "node:assert/strict";
import type { SamplingParams, TokenLogprobs } from "../../../src/core/protocol/generate.ts";
import { Random } from "../../../src/core/random.ts";
import { samplingDefaults } from "../../../src/core/sampling.ts";
import { Sampler } from "../../../src/executor/sampling/sampler.ts";
import { naiveLogprobs, naiveSample, naiveShape } from "./naive_sampler.ts";
import { randomLogits, randomParams } from "./random_sampling.ts";

const defaults: SamplingParams = {
  ...samplingDefaults,
  maxTokens: 100,
  seed: 7,
  eosTokenIds: [],
};

/** Samples once in a sequence with the given history. */
function sampleOnce(
  logits: ArrayLike<number>,
  params: Partial<SamplingParams>,
  prompt: number[] = [],
  output: number[] = [],
) {
  const sampler = new Sampler(logits.length);
  sampler.add({
    handle: 1,
    params: { ...defaults, ...params },
    promptTokenIds: prompt,
    outputTokenIds: output,
  });
  return sampler.sample(1, Float32Array.from(logits));
}

/** The ids that ever come out over many seeds. */
function support(logits: number[], params: Partial<SamplingParams>): number[] {
  const seen = new Set<number>();
  for (let seed = 0; seed < 400; seed++) seen.add(sampleOnce(logits, { ...params, seed }).tokenId);
  return [...seen].sort((a, b) => a - b);
}

function assertLogprobsEqual(actual: TokenLogprobs | null, expected: TokenLogprobs | null) {
  assert.equal(actual === null, expected === null);
  if (actual === null || expected === null) return;
  const close = (a: number | null, b: number | null) =>
    assert.ok(a === b || Math.abs(a! - b!) <= 1e-9 * (1 + Math.abs(b!)), `${a} is not ${b}`);
  assert.equal(actual.tokenId, expected.tokenId);
  assert.equal(actual.rank, expected.rank);
  close(actual.logprob, expected.logprob);
  assert.deepEqual(actual.top.map(([id]) => id), expected.top.map(([id]) => id));
  actual.top.forEach(([, logprob], i) => close(logprob, expected.top[i][1]));
}

const limitsOf = (vocabSize: number) => ({ minTokens: 4, logprobs: vocabSize + 5 });

Deno.test("agrees with the naive definition", () => {
  const random = new Random(20240501);
  for (let round = 0; round < 600; round++) {
    const vocabSize = random.below(10) === 0 ? 3000 + random.below(3000) : 1 + random.below(200);
    const logits = randomLogits(random, vocabSize);
    if (logits.every((logit) => logit === -Infinity)) continue;
    const params = { ...randomParams(random, vocabSize, limitsOf(vocabSize)), promptLogprobs: 3 };
    const tokens = () => Array.from({ length: random.below(6) }, () => random.below(vocabSize));
    const prompt = tokens(), output = tokens();
    const context = `round ${round}, vocabulary ${vocabSize}, ${JSON.stringify(params)}`;
    let expected;
    try {
      expected = naiveSample(logits, params, prompt, output);
    } catch (error) {
      throw new Error(context, { cause: error });
    }
    if (!Number.isFinite(Math.max(...naiveShape(logits, params)))) continue;
    const actual = sampleOnce(logits, params, prompt, output);
    assert.equal(actual.tokenId, expected.tokenId, context);
    assertLogprobsEqual(actual.logprobs, expected.logprobs);
  }
});

Deno.test("prompt log probabilities agree with the naive definition", () => {
  const random = new Random(3);
  for (let round = 0; round < 200; round++) {
    const vocabSize = 20 + random.below(100);
    const logits = Float32Array.from({ length: vocabSize }, () => random.normal());
    const params = { ...randomParams(random, vocabSize, limitsOf(vocabSize)), promptLogprobs: 3 };
    const sampler = new Sampler(vocabSize);
    sampler.add({ handle: 0, params, promptTokenIds: [1, 2, 3], outputTokenIds: [] });
    const next = random.below(vocabSize);
    assert.equal(sampler.wantsPromptLogprobs(0), 3);
    assertLogprobsEqual(
      sampler.promptLogprob(0, Float32Array.from(logits), next),
      naiveLogprobs(naiveShape(logits, params), next, 3),
    );
  }
});

Deno.test("draws follow the softmax", () => {
  const logits = [0, Math.log(2), Math.log(3), -Infinity, Math.log(4)];
  const sampler = new Sampler(logits.length);
  sampler.add({ handle: 0, params: defaults, promptTokenIds: [], outputTokenIds: [] });
  const draws = 20_000;
  const counts = new Array(logits.length).fill(0);
  for (let i = 0; i < draws; i++) counts[sampler.sample(0, Float32Array.from(logits)).tokenId]++;
  const expected = [0.1, 0.2, 0.3, 0, 0.4].map((p) => p * draws);
  assert.equal(counts[3], 0);
  const chiSquare = counts.reduce(
    (sum, count, i) => expected[i] ? sum + (count - expected[i]) ** 2 / expected[i] : sum,
    0,
  );
  assert.ok(chiSquare < 16.27, `chi-square ${chiSquare} with 3 degrees of freedom (p = 0.001)`);
});

Deno.test("the lowest id wins ties", () => {
  assert.equal(sampleOnce([1, 3, 3, 3], { temperature: 0 }).tokenId, 1);
  assert.equal(sampleOnce([-0, 0], { temperature: 0 }).tokenId, 0);
  assert.deepEqual(support([0, 0, 0, 0], { topP: 0.4 }), [0, 1]);
  assert.deepEqual(
    sampleOnce([2, 2, 2], { temperature: 0, logprobs: 2 }).logprobs!.top.map(([id]) => id),
    [0, 1],
  );
});

Deno.test("top-k keeps what equals the k-th value", () => {
  assert.deepEqual(support([1, 2, 2, 0], { topK: 1 }), [1, 2]);
  assert.deepEqual(support([1, 2, 3, 0], { topK: 2, temperature: 5 }), [1, 2]);
});

Deno.test("top-p drops tokens while their sum is at most 1 - p, never the best", () => {
  const logits = [1, 2, 3, 4].map(Math.log); // 0.1, 0.2, 0.3, 0.4
  assert.deepEqual(support(logits, { topP: 0.65 }), [2, 3]);
  assert.deepEqual(support(logits, { topP: 0.75 }), [1, 2, 3]);
  assert.deepEqual(support(logits, { topP: 0.0001 }), [3]);
});

Deno.test("min-p is relative to the best token", () => {
  const logits = [1, 2, 3, 4].map(Math.log);
  assert.deepEqual(support(logits, { minP: 0.6 }), [2, 3]);
});

Deno.test("end tokens are impossible before min_tokens, then possible", () => {
  const params = { temperature: 0, minTokens: 2, eosTokenIds: [0], stopTokenIds: [1] };
  assert.equal(sampleOnce([9, 8, 1], params, [], [2]).tokenId, 2);
  assert.equal(sampleOnce([9, 8, 1], params, [], [2, 2]).tokenId, 0);
  const everyToken = { temperature: 0, minTokens: 2, eosTokenIds: [0], stopTokenIds: [0, 1, 2, 9] };
  assert.equal(sampleOnce([9, 8, 1], everyToken).tokenId, 0);
});

Deno.test("penalties", () => {
  const greedy = { temperature: 0 };
  assert.equal(sampleOnce([2, 1.5], { ...greedy, repetitionPenalty: 1.5 }, [0]).tokenId, 1);
  assert.equal(sampleOnce([-1, -1.2], { ...greedy, repetitionPenalty: 1.5 }, [0]).tokenId, 1);
  assert.equal(sampleOnce([2, 1.5], { ...greedy, presencePenalty: 1 }, [0]).tokenId, 0);
  assert.equal(sampleOnce([2, 1.5], { ...greedy, presencePenalty: 1 }, [], [0]).tokenId, 1);
  assert.equal(sampleOnce([2, 1.5], { ...greedy, frequencyPenalty: 0.3 }, [], [0]).tokenId, 0);
  assert.equal(sampleOnce([2, 1.5], { ...greedy, frequencyPenalty: 0.3 }, [], [0, 0]).tokenId, 1);
  assert.equal(sampleOnce([2, 1.5], { ...greedy, repetitionPenalty: 1e-300 }, [1]).tokenId, 1);
});

Deno.test("a moved sequence draws on as if it had stayed", () => {
  const random = new Random(5);
  const vocabSize = 50;
  const params = { ...defaults, temperature: 1.3, presencePenalty: 0.4, repetitionPenalty: 1.2 };
  const steps = Array.from(
    { length: 20 },
    () => Float32Array.from({ length: vocabSize }, () => random.normal()),
  );
  const stayed = new Sampler(vocabSize);
  stayed.add({ handle: 0, params, promptTokenIds: [1, 2], outputTokenIds: [] });
  const expected = steps.map((logits) => stayed.sample(0, logits.slice()).tokenId);

  const moved = new Sampler(vocabSize);
  moved.add({ handle: 4, params, promptTokenIds: [1, 2], outputTokenIds: expected.slice(0, 8) });
  moved.accept(4, expected[8]);
  const rest = steps.slice(9).map((logits) => moved.sample(4, logits.slice()).tokenId);
  assert.deepEqual(rest, expected.slice(9));
});

Deno.test("plain greedy", () => {
  const sampler = new Sampler(4);
  const isPlain = (params: Partial<SamplingParams>) => {
    sampler.add({
      handle: 0,
      params: { ...defaults, temperature: 0, ...params },
      promptTokenIds: [],
      outputTokenIds: [1],
    });
    const plain = sampler.isPlainGreedy(0);
    sampler.remove(0);
    return plain;
  };
  assert.equal(isPlain({}), true);
  assert.equal(isPlain({ topP: 0.5, topK: 3, minTokens: 1 }), true);
  assert.equal(isPlain({ temperature: 1 }), false);
  assert.equal(isPlain({ logprobs: 0 }), false);
  assert.equal(isPlain({ minTokens: 2 }), false);
  assert.equal(isPlain({ frequencyPenalty: 0.1 }), false);
});

Deno.test("garbage logits are refused", () => {
  assert.throws(() => sampleOnce([1, NaN, 2], {}), /logit of token 1 is NaN/);
  assert.throws(() => sampleOnce([NaN, 1], { temperature: 0 }), /logit of token 0 is NaN/);
  assert.throws(() => sampleOnce([1, Infinity], {}), /logit of token 1 is Infinity/);
  assert.throws(() => sampleOnce([-Infinity, -Infinity], {}), /every token is excluded/);
});

Deno.test("unknown and doubled handles are refused", () => {
  const sampler = new Sampler(4);
  assert.throws(() => sampler.accept(3, 0), /no sequence has the handle 3/);
  const start = { handle: 3, params: defaults, promptTokenIds: [], outputTokenIds: [] };
  sampler.add(start);
  assert.throws(() => sampler.add(start), /handle 3 is in use/);
  sampler.remove(3);
  sampler.add(start);
});
