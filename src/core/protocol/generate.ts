/**
 * API server and instance: requests, their output, aborts. All records of the protocol are plain JSON data.
 *
 * Exactly one instance owns a request at a time. Output tokens carry their index, so that the API server
 * delivers each token once and in order, even if the request moves or its instance dies.
 */
import type { ErrorRecord } from "../errors.ts";

export type InstanceId = string;

export type RequestId = string;

/** High-priority requests run first, and instances keep headroom for them. */
export type Priority = "high" | "normal";

/** How the tokens of one sequence are chosen. Field meanings are vLLM 0.4.2's; all are resolved. */
export interface SamplingParams {
  /** Most output tokens; >= 1. */
  readonly maxTokens: number;
  /** Output tokens before an end-of-sequence or stop token may be chosen. */
  readonly minTokens: number;
  /** 0 means greedy. */
  readonly temperature: number;
  /** In (0, 1]; 1 keeps all. */
  readonly topP: number;
  /** -1 keeps all. */
  readonly topK: number;
  /** In [0, 1]; 0 keeps all. */
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 1 means none. */
  readonly repetitionPenalty: number;
  /** Safe integer >= 0; always present, so that a moved or resumed request draws the same numbers. */
  readonly seed: number;
  /** Tokens that end the output, in addition to the model's end-of-sequence tokens. */
  readonly stopTokenIds: readonly number[];
  /** The model's end-of-sequence tokens. */
  readonly eosTokenIds: readonly number[];
  readonly ignoreEos: boolean;
  /** Added to the logits of tokens before anything else; default none. */
  readonly logitBias?: readonly (readonly [tokenId: number, bias: number])[];
  /** Only these tokens may be chosen; default all. */
  readonly allowedTokenIds?: readonly number[];
  /** Sequences of tokens that the output may not contain; default none. */
  readonly badWords?: readonly (readonly number[])[];
  /** Alternatives reported per output token; null reports no log probabilities at all. */
  readonly logprobs: number | null;
  /** The same for prompt tokens. */
  readonly promptLogprobs: number | null;
}

/** API server to instance: run this. */
export interface GenerateRequest {
  readonly requestId: RequestId;
  /** The API server that receives the output. */
  readonly frontendId: string;
  /** In a call `generate` those of a long prompt are in the payload: see `prompt_payload.ts`. */
  readonly promptTokenIds: readonly number[];
  /** Tokens already produced elsewhere; generation goes on after them. */
  readonly outputTokenIds: readonly number[];
  readonly params: SamplingParams;
  /** Milliseconds since the epoch; FCFS order everywhere. */
  readonly arrivalMs: number;
  /** Default normal. */
  readonly priority?: Priority;
  /** Default 0. See {@linkcode OwnershipEpoch}. */
  readonly epoch?: OwnershipEpoch;
  /** See {@linkcode DispatchReply}; default none. */
  readonly expectedSteps?: number;
  /** Asks for {@linkcode RequestOutput.timing} in the outputs. */
  readonly timestamps?: boolean;
  /**
   * How long the instance keeps the tokens after the request has ended or was aborted, so that it can
   * be resumed: see {@linkcode TakeRequest}. Default: not at all.
   */
  readonly holdMs?: number;
}

/** Longest {@linkcode GenerateRequest.holdMs}. */
export const MAX_HOLD_MS = 3_600_000;

/**
 * Grows whenever another instance may have become the owner of a request: by 1 at every migration,
 * to the next multiple of {@linkcode RESUME_EPOCH} when the API server resumes it elsewhere. Where two instances
 * both believe that they own a request, after a lost message or a partition, the higher epoch is
 * right, and the API server aborts it at the other.
 */
export type OwnershipEpoch = number;

/** More than a request can migrate between two resumptions. */
export const RESUME_EPOCH = 65536;

/** The epoch of a request that is resumed after `epoch`. */
export function nextResumeEpoch(epoch: OwnershipEpoch): OwnershipEpoch {
  return (Math.floor(epoch / RESUME_EPOCH) + 1) * RESUME_EPOCH;
}

/** Log probability of one token and of the best alternatives at its position. */
export interface TokenLogprobs {
  readonly tokenId: number;
  /** Natural logarithm; null for -inf, which JSON cannot carry. */
  readonly logprob: number | null;
  /** 1 for the most likely token. */
  readonly rank: number;
  /** Best alternatives, most likely first. */
  readonly top: readonly (readonly [tokenId: number, logprob: number | null])[];
}

/** `stop`: an end or stop token; `length`: maxTokens or the model's limit; `abort`; `error`. */
export type FinishReason = "stop" | "length" | "abort" | "error";

/** Why a request ended. */
export interface Finish {
  readonly reason: FinishReason;
  /** The stop token that ended it, when it was not an end-of-sequence token. */
  readonly stopTokenId?: number;
  /** Set with reason `error`. */
  readonly error?: ErrorRecord;
}

/** Instance to API server: what one or more steps produced for one request. */
export interface RequestOutput {
  readonly requestId: RequestId;
  /** Index in the request's output of the first of `tokenIds`. */
  readonly index: number;
  readonly tokenIds: readonly number[];
  /**
   * Epoch under which they were produced; absent means 0. An instance that takes a request over says
   * so at once, with an output without tokens.
   */
  readonly epoch?: OwnershipEpoch;
  /** One per token id, when asked for. */
  readonly logprobs?: readonly TokenLogprobs[];
  /** One per prompt token (null for the first), with the first output. */
  readonly promptLogprobs?: readonly (TokenLogprobs | null)[];
  /** Set on the last output of the request, exactly once. */
  readonly finish?: Finish;
  /** Where it was asked for. */
  readonly timing?: OutputTiming;
  /**
   * With the first token of the request: how long it took since the request's first step at this
   * instance, by the instance's clock.
   */
  readonly prefillMs?: number;
}

/**
 * When the tokens of an output passed each hop of their way: milliseconds since the epoch by the clock
 * of the process that they passed, filled in as they pass.
 */
export interface OutputTiming {
  /** How long the engine step took in which they were made. */
  readonly stepMs: number;
  /** The engine had the step's result. */
  readonly steppedMs: number;
  /** The instance handed them to its connection to the API server. */
  readonly sentMs?: number;
  /** The API server had them. */
  readonly receivedMs?: number;
}

/** API server to instance, call `hello`, before any other: outputs for this API server go here. */
export interface FrontendHello {
  readonly frontendId: string;
}

/** Instance to API server, notification `outputs`: what one step produced for its requests. */
export interface OutputBatch {
  readonly outputs: readonly RequestOutput[];
}

/** API server to instance, notification `abort`: drop these requests. Unknown ids are ignored. */
export interface AbortNotice {
  readonly requestIds: readonly RequestId[];
  /**
   * Drops a request only if the instance holds it under this epoch or a lower one: a late abort must
   * not end a request that has come back since. Absent: any epoch.
   */
  readonly upToEpoch?: OwnershipEpoch;
}

/**
 * API server to instance, call `missing`, about requests that it has not heard of for a while:
 * which of them does the instance not have (any more)?
 */
export interface MissingRequest {
  readonly requestIds: readonly RequestId[];
}

export interface MissingReply {
  readonly requestIds: readonly RequestId[];
}

/**
 * API server to instance, call `take`: what do you hold of this request? From now on the request is
 * the caller's. An instance that still runs it stops, and tells the API server that had it.
 */
export interface TakeRequest {
  readonly requestId: RequestId;
}

export interface TakeReply {
  /** Null: the instance does not hold the request, or not any more. */
  readonly held: HeldRequest | null;
}

/** What another API server needs, beside the request's own text, to continue a request. */
export interface HeldRequest {
  /** All output so far. */
  readonly tokenIds: readonly number[];
  /** Set if the output is complete. */
  readonly finish?: Finish;
  readonly seed: number;
  readonly arrivalMs: number;
  /** The epoch under which the request goes on; above all epochs that the instance knew. */
  readonly epoch: OwnershipEpoch;
}
