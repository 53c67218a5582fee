/** Sampling and text parameters as OpenAI's API and vLLM 0.4.2's extensions of it write them. */
import * as z from "zod";
import { RequestError } from "../core/errors.ts";
import type { RequestedSampling, TextParams } from "../frontend/service.ts";
import { MAX_STOP_LENGTH } from "../frontend/stop_checker.ts";
import type { JsonObject } from "./json_body.ts";
import { priorityField } from "./priority.ts";
import type { FieldCheck } from "./unknown_fields.ts";
import { anInteger, aNumber, trueOrFalse } from "./validation.ts";

/** Most stop strings of one request; each is compared with the output on every token. */
const MAX_STOP_STRINGS = 16;
const MAX_STOP_TOKENS = 256;
const MAX_BIASES = 1024;
const MAX_ALLOWED_TOKENS = 4096;
/** Tokenising as many takes about 20 ms. */
const MAX_BAD_WORDS = 128;
const MAX_BAD_WORD_LENGTH = 64;
/** Most sequences of one prompt, as in OpenAI's API. */
const MAX_SEQUENCES = 128;

/** The empty string stands for no stop strings, as clients send it. */
function isStop(value: unknown): value is string | string[] {
  if (typeof value === "string") return value.length <= MAX_STOP_LENGTH;
  return Array.isArray(value) && value.length <= MAX_STOP_STRINGS &&
    value.every((it) => typeof it === "string" && it !== "" && it.length <= MAX_STOP_LENGTH);
}

/** Signed or unsigned 64 bits; beyond 53 of them a seed is a bigint (`json_body.ts`). */
function isSeed(value: unknown): value is number | bigint {
  if (typeof value === "bigint") return value >= -(2n ** 63n) && value < 2n ** 64n;
  return Number.isSafeInteger(value);
}

export function isTokenId(value: unknown): value is number {
  return Number.isSafeInteger(value) && value as number >= 0;
}

function isTokenList(value: unknown, most: number): value is number[] {
  return Array.isArray(value) && value.length <= most && value.every(isTokenId);
}

function isLogitBias(value: unknown): value is Record<string, number> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const entries = Object.entries(value);
  return entries.length <= MAX_BIASES &&
    entries.every(([id, bias]) =>
      /^\d{1,10}$/.test(id) && typeof bias === "number" && Math.abs(bias) <= 100
    );
}

function isBadWords(value: unknown): value is string[] {
  const isWord = (word: unknown) =>
    typeof word === "string" && word !== "" && word.length <= MAX_BAD_WORD_LENGTH &&
    word.isWellFormed();
  return Array.isArray(value) && value.length <= MAX_BAD_WORDS && value.every(isWord);
}

/** A list of token ids as JSON schema says it, for `/openapi.json`. */
function tokenList(minItems: number, maxItems: number) {
  return { type: "array", minItems, maxItems, items: { type: "integer", minimum: 0 } };
}

/** Fields that all generating routes share: their types. The service checks the ranges. */
export const samplingFields = {
  max_tokens: anInteger.nullish(),
  min_tokens: anInteger.nullish(),
  temperature: aNumber.nullish(),
  top_p: aNumber.nullish(),
  top_k: anInteger.nullish(),
  min_p: aNumber.nullish(),
  presence_penalty: aNumber.nullish(),
  frequency_penalty: aNumber.nullish(),
  repetition_penalty: aNumber.nullish(),
  seed: z.custom<number | bigint>(isSeed, "an integer of at most 64 bits")
    .meta({ type: "integer", minimum: -(2 ** 63), maximum: 2 ** 64 }).nullish(),
  ignore_eos: trueOrFalse.nullish(),
  logit_bias: z.custom<Record<string, number>>(
    isLogitBias,
    `an object of at most ${MAX_BIASES} token ids with numbers from -100 to 100`,
  ).meta({
    type: "object",
    maxProperties: MAX_BIASES,
    additionalProperties: { type: "number", minimum: -100, maximum: 100 },
  }).nullish(),
  allowed_token_ids: z.custom<number[]>(
    (value) => isTokenList(value, MAX_ALLOWED_TOKENS) && value.length > 0,
    `an array of 1 to ${MAX_ALLOWED_TOKENS} token ids (integers, 0 or more)`,
  ).meta(tokenList(1, MAX_ALLOWED_TOKENS)).nullish(),
  bad_words: z.custom<string[]>(
    isBadWords,
    `an array of at most ${MAX_BAD_WORDS} strings, each of 1 to ${MAX_BAD_WORD_LENGTH} characters`,
  ).meta({
    type: "array",
    maxItems: MAX_BAD_WORDS,
    items: { type: "string", minLength: 1, maxLength: MAX_BAD_WORD_LENGTH },
  }).nullish(),
  prompt_logprobs: anInteger.nullish(),
  stop: z.custom<string | string[]>(
    isStop,
    `a string or an array of at most ${MAX_STOP_STRINGS} strings, each of 1 to ${MAX_STOP_LENGTH} ` +
      "characters",
  ).meta({
    anyOf: [
      { type: "string", maxLength: MAX_STOP_LENGTH },
      {
        type: "array",
        maxItems: MAX_STOP_STRINGS,
        items: { type: "string", minLength: 1, maxLength: MAX_STOP_LENGTH },
      },
    ],
  }).nullish(),
  stop_token_ids: z.custom<number[]>(
    (value) => isTokenList(value, MAX_STOP_TOKENS),
    `an array of at most ${MAX_STOP_TOKENS} token ids (integers, 0 or more)`,
  ).meta(tokenList(0, MAX_STOP_TOKENS)).nullish(),
  include_stop_str_in_output: trueOrFalse.nullish(),
  skip_special_tokens: trueOrFalse.nullish(),
  spaces_between_special_tokens: trueOrFalse.nullish(),
  add_special_tokens: trueOrFalse.nullish(),
  stream: trueOrFalse.nullish(),
  priority: priorityField,
};

/** Output sequences of each prompt; of the OpenAI routes only. */
export const sequencesField = z.int("an integer").min(1, "at least 1")
  .max(MAX_SEQUENCES, `at most ${MAX_SEQUENCES}`).nullish();

/** Its unknown fields are kept, for `checkStreamOptions`. */
export const streamOptionsField = z.looseObject(
  { include_usage: trueOrFalse.nullish(), continuous_usage_stats: trueOrFalse.nullish() },
  "an object",
).nullish();

/** Options of OpenAI's and vLLM's APIs. Those that are not read change neither the text nor the final usage. */
const knownStreamOptions = new Set([
  "include_usage",
  "include_obfuscation",
  "continuous_usage_stats",
]);

/** @throws {RequestError} wrong stream options, options without a stream, or a field that cannot be streamed */
export function checkStreamOptions(fields: {
  stream?: boolean | null;
  stream_options?: JsonObject | null;
  prompt_logprobs?: number | null;
}, checkFields: FieldCheck): void {
  if (fields.stream_options) {
    checkFields(fields.stream_options, knownStreamOptions, "stream_options.");
  }
  if (fields.stream && typeof fields.prompt_logprobs === "number") {
    throw new RequestError(
      'prompt_logprobs cannot be streamed; leave out "stream".',
      "prompt_logprobs",
    );
  }
  if (!fields.stream && fields.stream_options) {
    throw new RequestError(
      'stream_options needs "stream": true.',
      "stream_options",
    );
  }
}

/** Whether the request asks for the usage so far in every chunk. */
export function hasContinuousUsage({ stream_options: options }: {
  stream_options?: z.infer<typeof streamOptionsField>;
}): boolean {
  return Boolean(options?.include_usage && options.continuous_usage_stats);
}

type SamplingFields = z.infer<z.ZodObject<typeof samplingFields>>;

/**
 * What the client asked for; fields it left out are absent.
 * @param logprobs alternatives per token, or null for no log probabilities
 */
export function toSampling(
  fields: SamplingFields,
  maxTokens: number | null,
  logprobs: { readonly output: number | null; readonly prompt: number | null },
): RequestedSampling {
  return withoutNulls({
    minTokens: fields.min_tokens,
    temperature: fields.temperature,
    topP: fields.top_p,
    topK: fields.top_k === 0 ? -1 : fields.top_k, // both keep all tokens, in vLLM since 0.5
    minP: fields.min_p,
    presencePenalty: fields.presence_penalty,
    frequencyPenalty: fields.frequency_penalty,
    repetitionPenalty: fields.repetition_penalty,
    seed: fields.seed,
    stopTokenIds: fields.stop_token_ids,
    ignoreEos: fields.ignore_eos,
    logitBias: biases(fields.logit_bias),
    allowedTokenIds: fields.allowed_token_ids,
    logprobs: logprobs.output,
    promptLogprobs: logprobs.prompt,
  }, { maxTokens });
}

export function toTextParams(fields: SamplingFields, detokenize = true): TextParams {
  return {
    stop: stopStrings(fields.stop),
    includeStopStrInOutput: fields.include_stop_str_in_output ?? false,
    skipSpecialTokens: fields.skip_special_tokens ?? true,
    spacesBetweenSpecialTokens: fields.spaces_between_special_tokens ?? true,
    detokenize,
  };
}

function biases(
  field: SamplingFields["logit_bias"],
): [tokenId: number, bias: number][] | undefined {
  const entries = Object.entries(field ?? {});
  return entries.length === 0 ? undefined : entries.map(([id, bias]) => [Number(id), bias]);
}

/** The requests of `n` sequences of one prompt: their seeds, if one is given, follow each other. */
export function withSequences<T extends { readonly sampling: RequestedSampling }>(
  count: number,
  make: () => T,
): T[] {
  return Array.from({ length: count }, (_, i) => {
    const request = make();
    const { seed } = request.sampling;
    if (i === 0 || seed === undefined || seed === null) return request;
    return { ...request, sampling: { ...request.sampling, seed: nthSeed(seed, i) } };
  });
}

/** `seed + i`, within 64 bits; a bigint where a number would lose digits. */
function nthSeed(seed: number | bigint, i: number): number | bigint {
  const sum = BigInt(seed) + BigInt(i);
  const wrapped = sum < 2n ** 64n ? sum : sum - 2n ** 64n;
  return Number.isSafeInteger(Number(wrapped)) ? Number(wrapped) : wrapped;
}

/** @throws {RequestError} a stop string that no output can contain */
function stopStrings(field: SamplingFields["stop"]): readonly string[] {
  if (field === undefined || field === null || field === "") return [];
  const strings = typeof field === "string" ? [field] : field;
  const broken = strings.findIndex((text) => !text.isWellFormed());
  if (broken < 0) return strings;
  const name = typeof field === "string" ? "stop" : `stop[${broken}]`;
  throw new RequestError(
    `${name} has half of a surrogate pair, which is no character; send Unicode text.`,
    name,
  );
}

type NotNull<T> = { [K in keyof T]?: Exclude<T[K], null | undefined> };

function withoutNulls<T extends object, U>(fields: T, rest: U): NotNull<T> & U {
  const present = Object.entries(fields).filter(([, value]) =>
    value !== null && value !== undefined
  );
  return { ...Object.fromEntries(present), ...rest } as NotNull<T> & U;
}
