import * as z from "zod";
import type { ErrorRecord } from "../../errors.ts";
import { type Check, checkWith } from "../check.ts";
import { MessageError } from "../../errors.ts";
import {
  type AbortNotice,
  type FrontendHello,
  type GenerateRequest,
  MAX_HOLD_MS,
  type MissingReply,
  type MissingRequest,
  type OutputBatch,
  type RequestOutput,
  type TakeReply,
  type TakeRequest,
} from "../generate.ts";
import {
  count,
  counts,
  errorRecord,
  id,
  ids,
  isCount,
  isId,
  isList,
  number,
  priority,
} from "./fields.ts";

export const hello: Check<FrontendHello> = checkWith(z.object({ frontendId: id }));

/** Most biases, and most bad words, of a request. */
const MAX_RESTRICTIONS = 1024;

const sampling = z.object({
  maxTokens: count,
  minTokens: count,
  temperature: number,
  topP: number,
  topK: z.int(),
  minP: number,
  presencePenalty: number,
  frequencyPenalty: number,
  repetitionPenalty: number,
  seed: count,
  stopTokenIds: counts,
  eosTokenIds: counts,
  ignoreEos: z.boolean(),
  logitBias: z.array(z.tuple([count, number])).max(MAX_RESTRICTIONS).optional(),
  allowedTokenIds: counts.optional(),
  badWords: z.array(counts).max(MAX_RESTRICTIONS).optional(),
  logprobs: count.nullable(),
  promptLogprobs: count.nullable(),
});

export const request = z.object({
  requestId: id,
  frontendId: id,
  promptTokenIds: counts,
  outputTokenIds: counts,
  params: sampling,
  arrivalMs: number,
  priority: priority.optional(),
  epoch: count.optional(),
  expectedSteps: count.optional(),
  timestamps: z.boolean().optional(),
  holdMs: z.number().positive().max(MAX_HOLD_MS).optional(),
});
export const generateRequest: Check<GenerateRequest> = checkWith(request);

export const abortNotice: Check<AbortNotice> = checkWith(
  z.object({ requestIds: ids, upToEpoch: count.optional() }),
);
export const missingRequest: Check<MissingRequest> = checkWith(z.object({ requestIds: ids }));
export const missingReply: Check<MissingReply> = missingRequest;

export const takeRequest: Check<TakeRequest> = checkWith(z.object({ requestId: id }));
export const takeReply: Check<TakeReply> = checkWith(z.object({
  held: z.object({
    tokenIds: counts,
    finish: z.object({ reason: z.enum(["stop", "length"]), stopTokenId: count.optional() })
      .optional(),
    seed: count,
    arrivalMs: number,
    epoch: count,
  }).nullable(),
}));

const MAX_OUTPUTS = 1 << 16;
const finishReasons = new Set<unknown>(["stop", "length", "abort", "error"]);
const finishError: Check<ErrorRecord> = checkWith(errorRecord);

/** By hand: it runs for every token, and a schema would cost as much as the rest of its way. */
export function outputBatch(data: unknown): OutputBatch {
  const outputs = (data as Partial<OutputBatch> | null)?.outputs;
  if (!Array.isArray(outputs) || outputs.length > MAX_OUTPUTS) {
    throw new MessageError(`field outputs: expected a list of at most ${MAX_OUTPUTS} outputs`);
  }
  for (let i = 0; i < outputs.length; i++) {
    const problem = problemOf(outputs[i]);
    if (problem !== null) throw new MessageError(`field outputs[${i}]${problem}`);
  }
  return data as OutputBatch;
}

/** What is wrong with an output, behind its place in the batch; null when it fits. */
function problemOf(output: RequestOutput | null): string | null {
  if (typeof output !== "object" || output === null) return ": expected an output";
  const { requestId, index, tokenIds, epoch, logprobs, promptLogprobs, finish, timing, prefillMs } =
    output;
  if (!isId(requestId)) return ".requestId: expected an id";
  if (!isCount(index)) return ".index: expected a whole number";
  if (!isList(tokenIds, isCount)) return ".tokenIds: expected a list of token ids";
  if (epoch !== undefined && !isCount(epoch)) return ".epoch: expected a whole number";
  if (
    logprobs !== undefined && !(isList(logprobs, isLogprobs) && logprobs.length === tokenIds.length)
  ) {
    return ".logprobs: expected log probabilities, one entry for each token";
  }
  if (promptLogprobs !== undefined && !isList(promptLogprobs, isLogprobsOrNull)) {
    return ".promptLogprobs: expected a list of log probabilities";
  }
  if (timing !== undefined && !isTiming(timing)) return ".timing: expected times in milliseconds";
  if (prefillMs !== undefined && !Number.isFinite(prefillMs)) return ".prefillMs: expected a time";
  return finish === undefined ? null : finishProblem(finish);
}

function finishProblem(finish: RequestOutput["finish"] | null): string | null {
  if (!finishReasons.has(finish?.reason)) {
    return ".finish.reason: expected stop, length, abort or error";
  }
  const { stopTokenId, error, reason } = finish!;
  if (stopTokenId !== undefined && !isCount(stopTokenId)) {
    return ".finish.stopTokenId: expected a token id";
  }
  if ((reason === "error") !== (error !== undefined)) {
    return ".finish.error: expected an error with reason error, and only then";
  }
  if (error !== undefined) finishError(error);
  return null;
}

function isLogprobsOrNull(data: unknown): boolean {
  return data === null || isLogprobs(data);
}

function isLogprobs(data: unknown): boolean {
  const { tokenId, logprob, rank, top } = (data ?? {}) as Record<string, unknown>;
  return isCount(tokenId) && isLogprob(logprob) && isCount(rank) && isList(top, isAlternative);
}

function isAlternative(data: unknown): boolean {
  return Array.isArray(data) && data.length === 2 && isCount(data[0]) && isLogprob(data[1]);
}

function isLogprob(data: unknown): boolean {
  return data === null || Number.isFinite(data);
}

function isTiming(data: unknown): boolean {
  const { stepMs, steppedMs, sentMs, receivedMs } = (data ?? {}) as Record<string, unknown>;
  const optional = [sentMs, receivedMs].filter((ms) => ms !== undefined);
  return [stepMs, steppedMs, ...optional].every(Number.isFinite);
}
