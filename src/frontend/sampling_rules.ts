import { RequestError } from "../core/errors.ts";
import type { SamplingParams } from "../core/protocol/generate.ts";
import { samplingDefaults } from "../core/sampling.ts";
import type { TokenIds } from "../core/token_ids.ts";
import type { RequestedSampling, TextParams } from "./service.ts";

/** Lower temperatures mean greedy (`_SAMPLING_EPS` of vLLM). */
const leastTemperature = 1e-5;

/** What a request's sampling parameters are checked against and completed from. */
export interface SamplingContext {
  readonly promptTokens: number;
  /** The field that holds the prompt, for errors. */
  readonly promptField: string;
  readonly maxModelLen: number;
  readonly vocabSize: number;
  /** `--max-logprobs` */
  readonly maxLogprobs: number;
  readonly eosTokenIds: readonly number[];
  /** The model's own defaults, used in place of vLLM's. */
  readonly defaultSampling: Readonly<Partial<SamplingParams>>;
  /** Whether prompt and `maxTokens` must fit together; see `TextRequest.refuseOverlong`. */
  readonly refuseOverlong: boolean;
  /** Makes the seed of a request without one. */
  readonly nextSeed: () => number;
}

/**
 * Fills in what the client left out and checks what it set.
 * @throws {RequestError} a value out of range, or a prompt that leaves no room for output
 */
export function resolveSampling(
  requested: RequestedSampling,
  context: SamplingContext,
): SamplingParams {
  const { maxTokens, seed, ...set } = requested;
  const given = Object.fromEntries(
    Object.entries(set).filter(([, value]) => value !== undefined),
  ) as typeof set;
  const filled = { ...samplingDefaults, ...context.defaultSampling, ...given };
  check(filled, context);
  const room = roomForOutput(maxTokens, context);
  if (filled.minTokens > (maxTokens ?? room)) {
    throw new RequestError(
      `min_tokens must be at most max_tokens (${maxTokens ?? room}), got ${filled.minTokens}.`,
      "min_tokens",
    );
  }
  const isGreedy = filled.temperature < leastTemperature;
  return {
    ...filled,
    ...(isGreedy && { temperature: 0, topP: 1, topK: -1, minP: 0 }),
    maxTokens: Math.min(maxTokens ?? room, room),
    seed: resolveSeed(seed, context),
    eosTokenIds: context.eosTokenIds,
  };
}

/**
 * Refuses a prompt that leaves no room for output, in OpenAI's words.
 * @param tokens tokens of the prompt
 * @param field of the request that holds it
 * @param atLeast the prompt has more tokens: it was not encoded to the end
 * @throws {RequestError}
 */
export function checkPromptTokens(
  tokens: number,
  maxModelLen: number,
  field: string,
  atLeast = false,
): void {
  if (tokens === 0) throw new RequestError("The prompt is empty: it has no tokens.", field);
  if (tokens < maxModelLen) return;
  throw new RequestError(
    `This model's maximum context length is ${maxModelLen} tokens. However, your prompt has ` +
      `${atLeast ? "at least " : ""}${tokens} tokens, which leaves no room for output. Please ` +
      `reduce the length of the prompt.`,
    field,
  );
}

/** @throws {RequestError} a token id outside the vocabulary */
export function checkTokenIds(ids: TokenIds, vocabSize: number, name: string): void {
  for (const id of ids) {
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new RequestError(
      `${name} has the token id ${id}; the vocabulary has ids 0 to ${vocabSize - 1}.`,
      name,
    );
  }
}

/** @throws {RequestError} there are stop strings, but no text to find them in */
export function checkTextParams(text: TextParams, hasTokenizer: boolean): void {
  if (text.stop.length === 0) return;
  if (text.stop.includes("")) {
    throw new RequestError("stop has an empty string; stop strings need a character.", "stop");
  }
  if (hasTokenizer && text.detokenize) return;
  const cause = hasTokenizer ? "detokenize is false" : "the server runs without a tokenizer";
  throw new RequestError(`stop needs output text, but ${cause}: use stop_token_ids.`, "stop");
}

/** The most output tokens. */
function roomForOutput(maxTokens: number | null, context: SamplingContext): number {
  const { promptTokens, promptField, maxModelLen, refuseOverlong } = context;
  checkPromptTokens(promptTokens, maxModelLen, promptField);
  if (maxTokens !== null) {
    checkThat(
      Number.isInteger(maxTokens) && maxTokens >= 1,
      "max_tokens",
      "at least 1 and an integer",
      maxTokens,
    );
  }
  if (refuseOverlong && promptTokens + (maxTokens ?? 0) > maxModelLen) {
    throw new RequestError(
      `This model's maximum context length is ${maxModelLen} tokens. However, you requested ` +
        `${promptTokens + maxTokens!} tokens (${promptTokens} in the prompt, ${maxTokens} in the ` +
        `completion). Please reduce the length of the prompt or the completion.`,
      "max_tokens",
    );
  }
  return maxModelLen - promptTokens;
}

function resolveSeed(seed: RequestedSampling["seed"], context: SamplingContext): number {
  if (seed === null || seed === undefined) return context.nextSeed();
  if (typeof seed === "bigint" && !Number.isSafeInteger(Number(seed))) return foldSeed(seed);
  const safe = Number(seed);
  checkThat(Number.isSafeInteger(safe), "seed", "an integer of at most 64 bits", seed);
  return safe < 0 ? safe + 2 ** 53 : safe;
}

/** 53 bits of a 64-bit seed, mixed so that seeds that differ in any bit differ here (SplitMix64). */
function foldSeed(seed: bigint): number {
  let bits = BigInt.asUintN(64, seed);
  bits = BigInt.asUintN(64, (bits ^ (bits >> 30n)) * 0xbf58476d1ce4e5b9n);
  bits = BigInt.asUintN(64, (bits ^ (bits >> 27n)) * 0x94d049bb133111ebn);
  return Number((bits ^ (bits >> 31n)) >> 11n);
}

type Filled = Omit<SamplingParams, "maxTokens" | "seed" | "eosTokenIds">;

/** vLLM's ranges (SamplingParams._verify_args). Comparisons are false for NaN. */
function check(filled: Filled, { maxLogprobs, vocabSize }: SamplingContext): void {
  const { temperature, topP, topK, minP, minTokens, repetitionPenalty } = filled;
  const isIn = (value: number, least: number, most: number) => value >= least && value <= most;
  checkThat(
    isIn(filled.presencePenalty, -2, 2),
    "presence_penalty",
    "in [-2, 2]",
    filled.presencePenalty,
  );
  checkThat(
    isIn(filled.frequencyPenalty, -2, 2),
    "frequency_penalty",
    "in [-2, 2]",
    filled.frequencyPenalty,
  );
  checkThat(
    repetitionPenalty > 0 && repetitionPenalty <= 2,
    "repetition_penalty",
    "in (0, 2]",
    repetitionPenalty,
  );
  checkThat(isIn(temperature, 0, Number.MAX_VALUE), "temperature", "a number >= 0", temperature);
  checkThat(topP > 0 && topP <= 1, "top_p", "in (0, 1]", topP);
  checkThat(
    Number.isInteger(topK) && (topK === -1 || topK >= 1),
    "top_k",
    "-1 (all) or at least 1",
    topK,
  );
  checkThat(isIn(minP, 0, 1), "min_p", "in [0, 1]", minP);
  checkThat(
    Number.isInteger(minTokens) && minTokens >= 0,
    "min_tokens",
    "an integer >= 0",
    minTokens,
  );
  checkTokenIds(filled.stopTokenIds, vocabSize, "stop_token_ids");
  checkTokenIds(filled.allowedTokenIds ?? [], vocabSize, "allowed_token_ids");
  checkTokenIds((filled.logitBias ?? []).map(([id]) => id), vocabSize, "logit_bias");
  checkLogprobs(filled.logprobs, "logprobs", maxLogprobs);
  checkLogprobs(filled.promptLogprobs, "prompt_logprobs", maxLogprobs);
}

function checkLogprobs(count: number | null, name: string, maxLogprobs: number): void {
  if (count === null) return;
  checkThat(Number.isInteger(count) && count >= 0, name, "an integer >= 0", count);
  if (count <= maxLogprobs) return;
  throw new RequestError(
    `Cannot request more than ${maxLogprobs} ${name}, got ${count}; ` +
      "the server's --max-logprobs sets the limit.",
    name,
  );
}

function checkThat(holds: boolean, name: string, expected: string, got: unknown): void {
  if (!holds) throw new RequestError(`${name} must be ${expected}, got ${got}.`, name);
}
