import type { Clock } from "../core/clock.ts";
import type { Cluster, SubmittedRequest } from "../core/cluster.ts";
import { ConflictError, RequestError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
import type { HeldRequest, RequestOutput, SamplingParams } from "../core/protocol/generate.ts";
import { Random } from "../core/random.ts";
import type { TokenIds } from "../core/token_ids.ts";
import {
  checkPromptTokens,
  checkTextParams,
  checkTokenIds,
  resolveSampling,
} from "./sampling_rules.ts";
import type {
  EncodedPrompt,
  Prompt,
  ServedModel,
  TextHandle,
  TextOutput,
  TextRequest,
  TextService,
} from "./service.ts";
import { tokenText } from "./token_logprobs.ts";
import { EncoderPool } from "./encoding/encoder_pool.ts";
import { PromptEncoder } from "./encoding/prompt_encoder.ts";
import { TextStream } from "./text_stream.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TurnBudget } from "../core/turn_budget.ts";

/** Characters that are encoded on the main thread in one turn of the event loop: about 5 ms. */
const ENCODED_PER_TURN = 4096;

/** Workers that encode long prompts. Each takes about 170 MB with a vocabulary of 128,000 tokens. */
const MAX_ENCODER_WORKERS = 4;

const RESUMED = "The client has resumed this stream over another connection.";

/** A request whose prompt is being encoded. */
interface Encoding {
  isAborted: boolean;
  /** Rejects when the client resumes the request over another connection. */
  readonly gaveWay: PromiseWithResolvers<never>;
}

export interface TextServiceOptions {
  readonly cluster: Cluster;
  /** Null with `--skip-tokenizer-init`. */
  readonly tokenizer: Tokenizer | null;
  readonly model: ServedModel;
  /** The model's end tokens (generation_config.json, config.json); the tokenizer's is added. */
  readonly eosTokenIds: readonly number[];
  /** `--max-logprobs` */
  readonly maxLogprobs: number;
  /** `--seed`; requests that name no seed draw theirs from it. */
  readonly seed: number;
  readonly clock: Clock;
  /** Starts a worker of the tokenizer; absent to encode long prompts on this thread, in many turns. */
  readonly startEncoderWorker?: () => Worker;
  /** Receives a line when a request ends; absent to log none. */
  readonly log?: (line: string) => void;
}

/** A text service over a tokenizer and a cluster. */
export function createTextService(options: TextServiceOptions): TextService {
  return new ClusterTextService(options);
}

class ClusterTextService implements TextService {
  readonly model: ServedModel;
  readonly #options: TextServiceOptions;
  readonly #eosTokenIds: readonly number[];
  readonly #seeds: Random;
  readonly #active = new Map<string, ActiveRequest>();
  readonly #encoding = new Map<string, Encoding>();
  readonly #encoder: PromptEncoder | null;
  /** Tokens of bad words, by the array that the prompts of a batch share. */
  readonly #badWordIds = new WeakMap<readonly string[], readonly number[][]>();

  constructor(options: TextServiceOptions) {
    this.#options = options;
    this.model = options.model;
    const own = options.tokenizer?.eosTokenId ?? null;
    this.#eosTokenIds = [...new Set([...options.eosTokenIds, ...(own === null ? [] : [own])])];
    this.#seeds = new Random(options.seed);
    this.#encoder = options.tokenizer && createEncoder(options, options.tokenizer);
  }

  isReady(): boolean {
    return this.#options.cluster.isReady();
  }

  async submit(request: TextRequest, sink: (output: TextOutput) => void): Promise<TextHandle> {
    const { cluster, tokenizer, clock } = this.#options;
    const { requestId, resumeAfter } = request;
    if (resumeAfter !== undefined) this.#giveWay(requestId);
    if (this.#active.has(requestId) || this.#encoding.has(requestId)) {
      throw new RequestError(`A request with the id ${requestId} is running.`, "request_id");
    }
    const arrivalMs = clock.nowMs();
    checkTextParams(request.text, tokenizer !== null);
    const progress: Encoding = { isAborted: false, gaveWay: Promise.withResolvers() };
    this.#encoding.set(requestId, progress);
    let prompt: EncodedPrompt;
    try {
      prompt = await Promise.race([this.#encode(request.prompt), progress.gaveWay.promise]);
    } finally {
      if (this.#encoding.get(requestId) === progress) this.#encoding.delete(requestId);
    }
    const params = this.#resolve(request, prompt);
    const active = new ActiveRequest(this.#options, request, prompt, params, sink, this.#release);
    if (progress.isAborted) {
      active.abort();
      return active;
    }
    this.#active.set(requestId, active);
    try {
      const generate: SubmittedRequest = {
        requestId,
        frontendId: cluster.frontendId,
        promptTokenIds: prompt.tokenIds,
        outputTokenIds: [],
        params,
        arrivalMs,
        priority: request.priority,
        timestamps: request.hopTimestamps,
        holdMs: request.holdMs,
      };
      const remaining = resumeAfter === undefined
        ? generate
        // The finish, which the client may have too, counts as one more token.
        : active.resume(generate, await cluster.take(requestId, resumeAfter - 1), resumeAfter);
      if (remaining !== null) await cluster.submit(remaining, (output) => active.receive(output));
    } catch (error) {
      this.#release(active);
      throw error;
    }
    clock.soon(() => active.flush());
    return active;
  }

  abort(requestId: string): void {
    const encoding = this.#encoding.get(requestId);
    if (encoding !== undefined) encoding.isAborted = true;
    this.#active.get(requestId)?.abort();
  }

  /** The client resumes the request: whatever runs here under its id ends. */
  #giveWay(requestId: string): void {
    this.#active.get(requestId)?.giveWay();
    this.#encoding.get(requestId)?.gaveWay.reject(new ConflictError(RESUMED));
    this.#encoding.delete(requestId);
  }

  /** Another request may have the same id by now. */
  readonly #release = (request: ActiveRequest): void => {
    const { requestId } = request;
    if (this.#active.get(requestId) === request) this.#active.delete(requestId);
  };

  #resolve(request: TextRequest, prompt: EncodedPrompt): SamplingParams {
    const badWords = this.#badWords(request);
    return resolveSampling({ ...request.sampling, ...(badWords.length > 0 && { badWords }) }, {
      promptTokens: prompt.tokenIds.length,
      promptField: fieldOf(request.prompt),
      maxModelLen: this.model.maxModelLen,
      vocabSize: this.model.vocabSize,
      maxLogprobs: Math.max(this.#options.maxLogprobs, request.maxLogprobs ?? 0),
      eosTokenIds: this.#eosTokenIds,
      defaultSampling: this.model.defaultSampling,
      refuseOverlong: request.refuseOverlong ?? false,
      nextSeed: () => Math.floor(this.#seeds.uniform() * 2 ** 53),
    });
  }

  tokenize(prompt: Prompt): Promise<EncodedPrompt> {
    return this.#encode(prompt);
  }

  detokenize(tokenIds: TokenIds): string {
    const { tokenizer } = this.#options;
    if (tokenizer === null) throw noTokenizer("tokens");
    checkTokenIds(tokenIds, this.model.vocabSize, "tokens");
    return tokenizer.decode(tokenIds, { skipSpecialTokens: false });
  }

  tokenText(tokenId: number): string {
    return tokenText(tokenId, this.#options.tokenizer);
  }

  /** Each word as tokens, at the beginning of the output and behind a space, as vLLM forbids it. */
  #badWords({ badWords = [] }: TextRequest): readonly number[][] {
    if (badWords.length === 0) return [];
    const known = this.#badWordIds.get(badWords);
    if (known !== undefined) return known;
    const { tokenizer } = this.#options;
    if (tokenizer === null) throw noTokenizer("bad_words");
    const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
    const ids = badWords.flatMap((word) => [encode(word), encode(` ${word.trimStart()}`)])
      .filter((ids) => ids.length > 0);
    this.#badWordIds.set(badWords, ids);
    return ids;
  }

  async #encode(prompt: Prompt): Promise<EncodedPrompt> {
    if ("tokenIds" in prompt) {
      checkPromptTokens(prompt.tokenIds.length, this.model.maxModelLen, "prompt");
      checkTokenIds(prompt.tokenIds, this.model.vocabSize, "prompt");
      return prompt;
    }
    const { tokenizer } = this.#options;
    if (tokenizer === null || this.#encoder === null) {
      throw new RequestError(
        "The server runs without a tokenizer (--skip-tokenizer-init): send the prompt as token ids.",
        fieldOf(prompt),
      );
    }
    // A chat template writes its special tokens itself; adding them again would double them.
    const [text, addSpecialTokens] = "messages" in prompt
      ? [this.#render(tokenizer, prompt), false]
      : [prompt.text, prompt.addSpecialTokens ?? true];
    const { maxModelLen } = this.model;
    const least = tokenizer.leastTokens(text);
    if (least > 0) checkPromptTokens(least, maxModelLen, fieldOf(prompt), true);
    const { tokenIds, isComplete } = await this.#encoder.encode(text, {
      addSpecialTokens,
      maxTokens: maxModelLen,
    });
    if (!isComplete) checkPromptTokens(tokenIds.length, maxModelLen, fieldOf(prompt), true);
    return { text, tokenIds };
  }

  #render(tokenizer: Tokenizer, prompt: Extract<Prompt, { messages: unknown }>): string {
    if (tokenizer.chatTemplate === null) {
      throw new RequestError(
        `${this.model.names[0]} has no chat template (chat_template in tokenizer_config.json, or ` +
          `chat_template.jinja): use completions instead of chat.`,
        "messages",
      );
    }
    const { messages, addGenerationPrompt, templateArguments } = prompt;
    return tokenizer.chatTemplate.render(messages, addGenerationPrompt, templateArguments);
  }
}

function noTokenizer(field: string): RequestError {
  return new RequestError(
    `${field} needs a tokenizer, and the server runs without one (--skip-tokenizer-init).`,
    field,
  );
}

const log = logger("tokenizer");

function createEncoder(options: TextServiceOptions, tokenizer: Tokenizer): PromptEncoder {
  const { startEncoderWorker: startWorker } = options;
  const turns = new TurnBudget(ENCODED_PER_TURN);
  const pool = startWorker
    ? new EncoderPool({
      source: tokenizer.source,
      startWorker,
      maxWorkers: Math.min(MAX_ENCODER_WORKERS, navigator.hardwareConcurrency),
      onFailure: (message) =>
        log.warn("long prompts are encoded on the main thread from now on", { message }),
    })
    : null;
  return new PromptEncoder({ tokenizer, pool, takeTurn: (characters) => turns.take(characters) });
}

/** The field of a request that holds such a prompt. */
function fieldOf(prompt: Prompt): "prompt" | "messages" {
  return "messages" in prompt ? "messages" : "prompt";
}

/** An accepted request, from the cluster's outputs to the caller's. */
class ActiveRequest implements TextHandle {
  readonly #stream: TextStream;
  /** Outputs of a resumed request that are due before all others. */
  #replayed: TextOutput[] = [];
  #ended = false;
  readonly #startMs: number;

  constructor(
    private readonly options: TextServiceOptions,
    private readonly request: TextRequest,
    private readonly prompt: EncodedPrompt,
    params: SamplingParams,
    private readonly sink: (output: TextOutput) => void,
    private readonly release: (request: ActiveRequest) => void,
  ) {
    const { clock, tokenizer } = options;
    this.#startMs = clock.nowMs();
    this.#stream = new TextStream({
      request,
      promptTokenIds: prompt.tokenIds,
      tokenizer,
      minTokens: params.minTokens,
      nowMs: () => clock.nowMs(),
    });
  }

  get requestId(): string {
    return this.request.requestId;
  }

  get promptTokenIds(): TokenIds {
    return this.prompt.tokenIds;
  }

  get promptText(): string {
    const { prompt, options: { tokenizer }, request } = this;
    const { skipSpecialTokens } = request.text;
    return prompt.text ?? tokenizer?.decode(prompt.tokenIds, { skipSpecialTokens }) ?? "";
  }

  get firstToken(): string {
    return tokenText(this.promptTokenIds[0], this.options.tokenizer);
  }

  receive(output: RequestOutput): void {
    if (this.#replayed.length > 0) this.flush();
    if (this.#ended) return;
    const text = this.#stream.next(output);
    // A stop string ends the request here; the instance does not know of it yet.
    if (text.finish && !output.finish) this.options.cluster.abort(this.requestId);
    this.#emit(text);
  }

  /**
   * Takes over what is held of the request, from its first token on, so that characters and stop strings
   * come out as if the request had run here all the time.
   * @param resumeAfter tokens that the client has; one more than there are: also the finish
   * @returns the request for the tokens that are missing; null if there are none
   */
  resume(
    request: SubmittedRequest,
    { tokenIds, finish, seed, arrivalMs, epoch }: HeldRequest,
    resumeAfter: number,
  ): SubmittedRequest | null {
    const { requestId, params } = request;
    // Log probabilities are not held: tokens that the client does not have are computed again.
    const hasLogprobs = params.logprobs !== null || params.promptLogprobs !== null;
    const known = hasLogprobs ? tokenIds.slice(0, resumeAfter) : tokenIds;
    const end = known.length === tokenIds.length ? finish : undefined;
    const hasEnd = resumeAfter > tokenIds.length;
    const had = known.slice(0, resumeAfter), rest = known.slice(resumeAfter);
    if (this.#ended) return null; // the client has left meanwhile
    const repeated = this.#stream.next({
      ...{ requestId, index: 0, tokenIds: had },
      ...(hasEnd && { finish: end }),
    });
    if (had.length > 0) this.#replayed.push({ ...repeated, text: "", isRepeated: true });
    if (repeated.finish) return null;
    const text = this.#stream.next({ requestId, index: had.length, tokenIds: rest, finish: end });
    if (rest.length > 0 || text.finish) this.#replayed.push(text);
    if (text.finish) return null;
    return {
      ...request,
      outputTokenIds: known,
      params: { ...params, seed, ...(known.length > 0 && { promptLogprobs: null }) },
      arrivalMs,
      epoch,
    };
  }

  /** Hands out what {@linkcode resume} took over. */
  flush(): void {
    for (const text of this.#replayed.splice(0)) this.#emit(text);
  }

  /** The client resumes the request over another connection: this one ends. */
  giveWay(): void {
    this.options.cluster.abort(this.requestId);
    const error = { kind: "conflict", message: RESUMED } as const;
    this.#emit({
      text: "",
      tokenIds: [],
      finish: { reason: "error", stopReason: null, error },
    });
  }

  #emit(text: TextOutput): void {
    if (this.#ended) return;
    if (text.finish) this.#end(text.finish.reason);
    this.sink(text);
  }

  abort(): void {
    this.options.cluster.abort(this.requestId);
    this.#end("abort");
  }

  #end(reason: string): void {
    this.#ended = true;
    this.release(this);
    const { log, clock } = this.options;
    if (log === undefined) return;
    const elapsedMs = Math.round(clock.nowMs() - this.#startMs);
    log(
      `finished request ${this.requestId}: ${reason}, ${this.prompt.tokenIds.length} prompt ` +
        `and ${this.#stream.outputTokens} output tokens in ${elapsedMs} ms`,
    );
  }
}
