/** Sampling and text parameters as OpenAI's API and vLLM 0.4.2's extensions of it write them. */
import { z } from "zod";
import { RequestError } from "../core/errors.ts";
import type { RequestedSampling, TextParams } from "../frontend/service.ts";
import { MAX_STOP_LENGTH } from "../frontend/stop_checker.ts";
import type { JsonObject } from "./json_body.ts";
import { priorityField } from "./priority.ts";
import { refuseUnknownFields } from "./unknown_fields.ts";
import { anInteger, aNumber, trueOrFalse } from "./validation.ts";

/** Most stop strings of one request; each is compared with the output on every token. */
const MAX_STOP_STRINGS = 16;
const MAX_STOP_TOKENS = 256;

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

function isTokenList(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= MAX_STOP_TOKENS && value.every(isTokenId);
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
  seed: z.custom<number | bigint>(isSeed, "an integer of at most 64 bits").nullish(),
  ignore_eos: trueOrFalse.nullish(),
  prompt_logprobs: anInteger.nullish(),
  stop: z.custom<string | string[]>(
    isStop,
    `a string or an array of at most ${MAX_STOP_STRINGS} strings, each of 1 to ${MAX_STOP_LENGTH} ` +
      "characters",
  ).nullish(),
  stop_token_ids: z.custom<number[]>(
    isTokenList,
    `an array of at most ${MAX_STOP_TOKENS} token ids (integers, 0 or more)`,
  ).nullish(),
  include_stop_str_in_output: trueOrFalse.nullish(),
  skip_special_tokens: trueOrFalse.nullish(),
  spaces_between_special_tokens: trueOrFalse.nullish(),
  add_special_tokens: trueOrFalse.nullish(),
  stream: trueOrFalse.nullish(),
  priority: priorityField,
};

/** Its unknown fields are kept, for `checkStreamOptions`. */
export const streamOptionsField = z.looseObject(
  { include_usage: trueOrFalse.nullish() },
  "an object",
).nullish();

/** The others of OpenAI's and vLLM's APIs, without which the text and the final usage are the same. */
const knownStreamOptions = new Set([
  "include_usage",
  "include_obfuscation",
  "continuous_usage_stats",
]);

/** @throws {RequestError} wrong stream options, or without a stream; what a stream cannot carry */
export function checkStreamOptions(fields: {
  stream?: boolean | null;
  stream_options?: JsonObject | null;
  prompt_logprobs?: number | null;
}): void {
  if (fields.stream_options) {
    refuseUnknownFields(fields.stream_options, knownStreamOptions, "stream_options.");
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
    topK: fields.top_k,
    minP: fields.min_p,
    presencePenalty: fields.presence_penalty,
    frequencyPenalty: fields.frequency_penalty,
    repetitionPenalty: fields.repetition_penalty,
    seed: fields.seed,
    stopTokenIds: fields.stop_token_ids,
    ignoreEos: fields.ignore_eos,
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
