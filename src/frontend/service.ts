/**
 * The interface between the HTTP routes and the cluster: text or tokens go in, text comes out.
 * `text_service.ts` implements it over a tokenizer and a {@linkcode Cluster}; the routes' tests use a fake.
 */
import type { ErrorRecord } from "../core/errors.ts";
import type { TokenIds } from "../core/token_ids.ts";
import type {
  FinishReason,
  OutputTiming,
  Priority,
  SamplingParams,
} from "../core/protocol/generate.ts";

/** The model as clients see it. */
export interface ServedModel {
  /** Names under which it is served; the first is the canonical one. */
  readonly names: readonly string[];
  readonly maxModelLen: number;
  /** Seconds since the epoch at which the service started. */
  readonly createdSeconds: number;
  readonly vocabSize: number;
  /** False with `--skip-tokenizer-init`: prompts must be token ids, outputs have no text. */
  readonly hasTokenizer: boolean;
  /**
   * Sampling defaults from generation_config.json, used in place of vLLM's. Empty to sample exactly as vLLM
   * 0.4.2, which reads only the end tokens from that file.
   */
  readonly defaultSampling: Readonly<Partial<SamplingParams>>;
}

/** How output tokens become text. */
export interface TextParams {
  /** Texts that end the output. */
  readonly stop: readonly string[];
  readonly includeStopStrInOutput: boolean;
  readonly skipSpecialTokens: boolean;
  /** Without effect, as in vLLM with any tokenizer that has a tokenizer.json. */
  readonly spacesBetweenSpecialTokens: boolean;
  readonly detokenize: boolean;
}

/** One chat message; `content` is text (parts are joined by the route). */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
  /** What a model thought before an earlier answer; templates of reasoning models read it. */
  readonly reasoning_content?: string;
}

export type Prompt =
  | { readonly text: string; readonly addSpecialTokens?: boolean }
  | { readonly tokenIds: readonly number[] }
  | {
    readonly messages: readonly ChatMessage[];
    readonly addGenerationPrompt: boolean;
    /** Further variables of the template, such as `enable_thinking`. */
    readonly templateArguments?: Readonly<Record<string, unknown>>;
  };

/**
 * Fields of a request's sampling that the client set; the service fills in defaults (vLLM's, or the
 * model's generation_config.json), resolves seed and end tokens, and bounds `maxTokens` by the
 * model's length (`maxTokens: null` asks for all that fits).
 */
export type RequestedSampling =
  & Partial<Omit<SamplingParams, "maxTokens" | "seed" | "eosTokenIds">>
  & {
    readonly maxTokens: number | null;
    /** Any 64-bit integer, signed or unsigned. */
    readonly seed?: number | bigint | null;
  };

export interface TextRequest {
  readonly requestId: string;
  readonly prompt: Prompt;
  readonly sampling: RequestedSampling;
  readonly text: TextParams;
  /** Default normal. */
  readonly priority?: Priority;
  /** Log probabilities per token that are allowed even where `--max-logprobs` is less. */
  readonly maxLogprobs?: number;
  /** Tokenised by the service, as the model may write them: at the beginning of a word and within one. */
  readonly badWords?: readonly string[];
  /**
   * Refuse a request whose prompt and `maxTokens` together exceed the model's length, as vLLM's OpenAI
   * server does; otherwise `maxTokens` is lowered to what fits, as its /generate does.
   */
  readonly refuseOverlong?: boolean;
  /**
   * Instances keep the request's tokens this long after it has ended or was aborted, so that it can be
   * resumed with `resumeAfter`. Default: not at all.
   */
  readonly holdMs?: number;
  /**
   * Go on with the request that has this id, wherever it ran, behind this many of its tokens; one more: its
   * finish was delivered too. Prompt and parameters have to be the same.
   */
  readonly resumeAfter?: number;
  /** Ask for {@linkcode TextOutput.timesMs}. */
  readonly timestamps?: boolean;
  /** Ask for {@linkcode TextOutput.timing}. */
  readonly hopTimestamps?: boolean;
}

/** A token's log probability with texts, as the HTTP APIs report it. */
export interface TextLogprob {
  readonly tokenId: number;
  /** Text of the token alone. */
  readonly token: string;
  /** UTF-8 bytes of the token; they may be part of a character. */
  readonly bytes: readonly number[];
  /** -Infinity when the token was impossible. */
  readonly logprob: number;
  readonly rank: number;
  readonly top: readonly Omit<TextLogprob, "top" | "rank">[];
  /** Characters (code points) of output text before this token; of prompt text for a prompt token. */
  readonly textOffset: number;
}

/** A piece of output; pieces arrive in order, the last has `finish`. */
export interface TextOutput {
  /** New text; whole characters only, stop strings already cut. May be empty. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** The first output of a resumed request: what its client has already. `text` is empty. */
  readonly isRepeated?: true;
  readonly logprobs?: readonly TextLogprob[];
  /** With the first output, when prompt log probabilities were asked for. */
  readonly promptLogprobs?: readonly (TextLogprob | null)[];
  /** When each of `tokenIds` arrived, in milliseconds since the epoch, if asked for. */
  readonly timesMs?: readonly number[];
  /** When the tokens passed each hop before, if asked for. */
  readonly timing?: OutputTiming;
  /** With the first token: how long its prefill took at the instance. */
  readonly prefillMs?: number;
  readonly finish?: {
    readonly reason: FinishReason;
    /** Stop string or stop token that ended it; null for end-of-sequence and other reasons. */
    readonly stopReason: string | number | null;
    /** With reason `error`. */
    readonly error?: ErrorRecord;
  };
}

/** An accepted request. */
export interface TextHandle {
  readonly promptTokenIds: TokenIds;
  /** Text of the prompt, for `echo`: as given, rendered from the chat, or decoded from tokens. */
  readonly promptText: string;
  /** Text of the prompt's first token alone, special or not. */
  readonly firstToken: string;
}

/** A prompt as tokens and as text. */
export interface EncodedPrompt {
  readonly tokenIds: TokenIds;
  /** Undefined when only tokens were given. */
  readonly text?: string;
}

export interface TextService {
  readonly model: ServedModel;
  isReady(): boolean;
  /**
   * The tokens of a prompt, as a request with it would have them.
   * @throws {RequestError} it can never be served
   */
  tokenize(prompt: Prompt): Promise<EncodedPrompt>;
  /**
   * The text of tokens, special ones included.
   * @throws {RequestError} there is no tokenizer, or an unknown token
   */
  detokenize(tokenIds: TokenIds): string;
  /** Text of one token alone. */
  tokenText(tokenId: number): string;
  /**
   * Accepts a request; outputs then arrive at `sink`, the first in a later turn of the event loop than
   * the one in which this resolved. Sinks must be quick and must not throw.
   * @throws {RequestError} it can never be served: too long, unknown token, bad parameter
   * @throws {OverloadedError} queues are full
   * @throws {UnavailableError} no instance, or stopping
   * @throws {LlumnixError} `not_found`: a request to resume is not held (any more)
   * @throws {ConflictError} the client has resumed the request over another connection meanwhile
   */
  submit(request: TextRequest, sink: (output: TextOutput) => void): Promise<TextHandle>;
  /**
   * Stops a request, also one whose `submit` has not settled yet; unknown ids are ignored. Its sink is
   * not called again.
   */
  abort(requestId: string): void;
}
