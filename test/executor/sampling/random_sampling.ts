/** Random inputs of samplers. */
import type { SamplingParams } from "../../../src/core/protocol/generate.ts";
import type { Random } from "../../../src/core/random.ts";
import { samplingDefaults } from "../../../src/core/sampling.ts";

/** Logits of many shapes; with `allowsFaults` also some with a NaN or an infinity. */
export function randomLogits(
  random: Random,
  vocabSize: number,
  allowsFaults = false,
): Float32Array {
  const shape = random.below(allowsFaults ? 7 : 5);
  const scale = 10 ** (random.uniform() * 3 - 1.5);
  return Float32Array.from({ length: vocabSize }, () => {
    const value = random.normal() * scale;
    if (shape === 0) return Math.round(value); // many ties, and -0
    if (shape === 1) return 1.5; // nothing but ties
    if (shape === 2 && random.below(3) === 0) return -Infinity;
    if (shape === 3 && random.below(50) === 0) return value * 1e20;
    if (allowsFaults && shape === 4 && random.below(vocabSize) === 0) {
      return random.below(2) ? NaN : Infinity;
    }
    return value;
  });
}

/** Parameters without bias, allowed tokens and bad words. @param limits exclusive */
export function randomParams(
  random: Random,
  vocabSize: number,
  limits: { readonly minTokens: number; readonly logprobs: number },
): SamplingParams {
  const maybe = (value: () => number, off: number) => random.below(2) === 0 ? off : value();
  const token = () => random.below(vocabSize);
  return {
    ...{ ...samplingDefaults, maxTokens: 100 },
    minTokens: random.below(limits.minTokens),
    temperature: maybe(() => 0.05 + 2 * random.uniform(), random.below(3) === 0 ? 0 : 1),
    topP: maybe(() => random.uniform() * 0.99 + 0.005, 1),
    topK: maybe(() => 1 + random.below(vocabSize + 3), -1),
    minP: maybe(() => random.uniform(), 0),
    presencePenalty: maybe(() => 4 * random.uniform() - 2, 0),
    frequencyPenalty: maybe(() => 4 * random.uniform() - 2, 0),
    repetitionPenalty: maybe(() => 0.5 + random.uniform(), 1),
    seed: random.below(Number.MAX_SAFE_INTEGER),
    eosTokenIds: vocabSize > 4 ? [token()] : [],
    stopTokenIds: vocabSize > 4 ? [token(), token()] : [],
    logprobs: [null, random.below(8), random.below(limits.logprobs)][random.below(3)],
  };
}
