/**
 * The sampler's definition, written as plainly as possible over full sorts: what vLLM 0.4.2 computes,
 * in float64, with ties going to the lowest id.
 */
import type { SamplingParams, TokenLogprobs } from "../../../src/core/protocol/generate.ts";
import { uniformAt } from "../../../src/core/random.ts";

/** One token's choice; logits are not changed. */
export function naiveSample(
  logits: Float32Array,
  params: SamplingParams,
  promptTokenIds: readonly number[],
  outputTokenIds: readonly number[],
): { tokenId: number; logprobs: TokenLogprobs | null } {
  const position = outputTokenIds.length;
  const values = Float32Array.from(logits);
  for (const [id, bias] of params.logitBias ?? []) values[id] += bias;
  const { allowedTokenIds, badWords = [] } = params;
  if (allowedTokenIds) {
    for (let id = 0; id < values.length; id++) {
      if (!allowedTokenIds.includes(id)) values[id] = -Infinity;
    }
  }
  for (const word of badWords) {
    const before = outputTokenIds.slice(outputTokenIds.length - (word.length - 1));
    const isShort = outputTokenIds.length < word.length - 1;
    const matches = word.length === 1 || !isShort && `${before}` === `${word.slice(0, -1)}`;
    if (matches) values[word.at(-1)!] = -Infinity;
  }
  if (position < params.minTokens) {
    for (const id of [...params.eosTokenIds, ...params.stopTokenIds]) values[id] = -Infinity;
  }
  for (let id = 0; id < values.length; id++) {
    const count = outputTokenIds.filter((token) => token === id).length;
    let value = values[id];
    if (count > 0 || promptTokenIds.includes(id)) {
      value = value > 0 ? value / params.repetitionPenalty : value * params.repetitionPenalty;
    }
    values[id] = value - params.frequencyPenalty * count - (count > 0 ? params.presencePenalty : 0);
  }
  const processed = naiveShape(values, params);
  const greedy = params.temperature < 1e-5;
  const tokenId = greedy ? descending(processed)[0] : naiveDraw(
    softmax(processed),
    uniformAt(params.seed, position),
  );
  return {
    tokenId,
    logprobs: params.logprobs === null ? null : naiveLogprobs(processed, tokenId, params.logprobs),
  };
}

/** Temperature and cuts: removed tokens are -Infinity. */
export function naiveShape(logits: Float32Array, params: SamplingParams): number[] {
  const greedy = params.temperature < 1e-5;
  const scaled = Array.from(logits, (logit) => greedy ? logit : logit / params.temperature);
  if (greedy) return scaled;
  const ascending = descending(scaled).reverse();
  if (params.topK > 0 && params.topK < scaled.length) {
    const kth = scaled[ascending[scaled.length - params.topK]];
    for (const id of ascending) if (scaled[id] < kth) scaled[id] = -Infinity;
  }
  if (params.topP < 1 - 1e-5) {
    const probabilities = softmax(scaled);
    let sum = 0;
    for (const id of ascending.slice(0, -1)) {
      sum += probabilities[id];
      if (sum <= 1 - params.topP) scaled[id] = -Infinity;
    }
  }
  if (params.minP > 1e-5) {
    const probabilities = softmax(scaled);
    const largest = Math.max(...probabilities);
    probabilities.forEach((p, id) => {
      if (p < params.minP * largest) scaled[id] = -Infinity;
    });
  }
  return scaled;
}

export function naiveLogprobs(processed: number[], tokenId: number, top: number): TokenLogprobs {
  const max = Math.max(...processed);
  const logTotal = Math.log(processed.reduce((sum, value) => sum + Math.exp(value - max), 0));
  const logprob = (id: number) =>
    processed[id] === -Infinity ? null : processed[id] - max - logTotal;
  return {
    tokenId,
    logprob: logprob(tokenId),
    rank: 1 + processed.filter((value) => value > processed[tokenId]).length,
    top: descending(processed).slice(0, top).map((id) => [id, logprob(id)]),
  };
}

function naiveDraw(probabilities: number[], u: number): number {
  let sum = 0;
  for (let id = 0; id < probabilities.length; id++) {
    sum += probabilities[id];
    if (sum > u) return id;
  }
  throw new Error("probabilities do not reach 1");
}

function softmax(values: readonly number[]): number[] {
  const max = Math.max(...values);
  const weights = values.map((value) => Math.exp(value - max));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** Ids by value, largest first; equal values by id. */
function descending(values: ArrayLike<number>): number[] {
  return Array.from({ length: values.length }, (_, id) => id)
    .sort((a, b) => values[a] === values[b] ? a - b : values[a] > values[b] ? -1 : 1);
}
