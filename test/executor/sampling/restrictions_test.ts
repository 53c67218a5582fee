import assert from "node:assert/strict";
import type { SamplingParams } from "../../../src/core/protocol/generate.ts";
import { Random } from "../../../src/core/random.ts";
import { samplingDefaults } from "../../../src/core/sampling.ts";
import { Sampler } from "../../../src/executor/sampling/sampler.ts";
import { naiveSample } from "./naive_sampler.ts";

const vocabSize = 40;
const defaults: SamplingParams = { ...samplingDefaults, maxTokens: 100, seed: 7, eosTokenIds: [0] };

function sampleOnce(
  logits: readonly number[],
  params: Partial<SamplingParams>,
  output: number[] = [],
) {
  const sampler = new Sampler(logits.length);
  sampler.add({
    handle: 1,
    params: { ...defaults, temperature: 0, ...params },
    promptTokenIds: [],
    outputTokenIds: output,
  });
  assert.equal(sampler.isPlainGreedy(1), false);
  return sampler.sample(1, Float32Array.from(logits)).tokenId;
}

Deno.test("a bias is added to the logits", () => {
  assert.equal(sampleOnce([1, 2, 3], { logitBias: [[0, 3]] }), 0);
  assert.equal(sampleOnce([1, 2, 3], { logitBias: [[2, -100], [99, 100], [-1, 100]] }), 1);
});

Deno.test("only allowed tokens are chosen", () => {
  assert.equal(sampleOnce([1, 2, 3, 4], { allowedTokenIds: [0, 1, 99] }), 1);
  const onlyEnds = { allowedTokenIds: [0], minTokens: 5 };
  assert.equal(sampleOnce([1, 2, 3, 4], onlyEnds), 0);
});

Deno.test("a bad word is cut off before its last token", () => {
  const badWords = [[2], [1, 3]];
  assert.equal(sampleOnce([1, 2, 9, 4], { badWords }), 3);
  assert.equal(sampleOnce([1, 2, 9, 4], { badWords }, [1]), 1);
  assert.equal(sampleOnce([1, 2, 9, 4], { badWords }, [1, 0]), 3);
});

Deno.test("where nothing would be left to choose, the request goes on all the same", () => {
  assert.equal(sampleOnce([1, 2], { badWords: [[0], [1], [1]] }), 1);
  assert.equal(sampleOnce([1, 2, 3], { allowedTokenIds: [2], badWords: [[2]] }), 2);
  assert.equal(sampleOnce([1, 2], { badWords: [[1]], minTokens: 3 }), 0);
});

Deno.test("a broken model is noticed behind restrictions", () => {
  assert.throws(() => sampleOnce([1, NaN, 3], { allowedTokenIds: [0] }), /logit of token 1 is NaN/);
});

Deno.test("restricted sampling agrees with its definition, and goes on after a move", () => {
  const random = new Random(21);
  for (let round = 0; round < 200; round++) {
    const ids = (most: number) =>
      Array.from({ length: 1 + random.below(most) }, () => random.below(vocabSize));
    const params: SamplingParams = {
      ...defaults,
      eosTokenIds: [vocabSize + 1],
      temperature: random.below(3) / 2,
      seed: round,
      logprobs: 3,
      topP: random.below(2) === 0 ? 0.8 : 1,
      presencePenalty: random.below(2),
      ...(random.below(2) === 0 && {
        logitBias: [...new Set(ids(5))].map((id) => [id, random.normal() * 5] as const),
      }),
      ...(random.below(2) === 0 && { allowedTokenIds: [...ids(20), 1, 2, 3, 4] }),
      badWords: Array.from(
        { length: random.below(4) },
        () => [5 + random.below(3), ...ids(2)].slice(0, 3),
      ),
    };
    const output: number[] = [];
    let sampler = new Sampler(vocabSize);
    const start = () =>
      sampler.add({ handle: 0, params, promptTokenIds: [1], outputTokenIds: [...output] });
    start();
    for (let step = 0; step < 12; step++) {
      if (step === 6) {
        sampler = new Sampler(vocabSize);
        start();
      }
      const logits = Float32Array.from({ length: vocabSize }, () => random.normal());
      const expected = naiveSample(logits, params, [1], output);
      const { tokenId } = sampler.sample(0, logits);
      assert.equal(tokenId, expected.tokenId, JSON.stringify(params));
      output.push(tokenId);
    }
  }
});
