/** A {@linkcode TextService} without a model, for tests of the routes. */
import { setImmediate } from "node:timers";
import { RequestError } from "../../src/core/errors.ts";
import { checkTokenIds, resolveSampling } from "../../src/frontend/sampling_rules.ts";
import type {
  EncodedPrompt,
  Prompt,
  ServedModel,
  TextHandle,
  TextLogprob,
  TextOutput,
  TextRequest,
  TextService,
} from "../../src/frontend/service.ts";

export type Emit = (output: TextOutput) => void;

/** A token per character, as a byte-level tokenizer has for ASCII. */
export function tokenize(text: string): number[] {
  return [...text].map((character) => character.codePointAt(0)!);
}

export class FakeTextService implements TextService {
  model: ServedModel = {
    names: ["fake", "org/alias"],
    maxModelLen: 4096,
    createdSeconds: 1_700_000_000,
    vocabSize: 1000,
    hasTokenizer: true,
    defaultSampling: {},
  };
  ready = true;
  /** All requests that were submitted. */
  readonly requests: TextRequest[] = [];
  /** Ids of aborted requests, as often as they were aborted. */
  readonly aborted: string[] = [];
  /** Throws to refuse a request. */
  admit: (request: TextRequest) => void | Promise<void> = () => {};
  /** Produces the output of an accepted request; `emit` does nothing after an abort. */
  generate: (request: TextRequest, emit: Emit) => void = speak(["Hello", ", ", "world"]);

  isReady(): boolean {
    return this.ready;
  }

  tokenize(prompt: Prompt): Promise<EncodedPrompt> {
    if ("tokenIds" in prompt) return Promise.resolve(prompt);
    const text = promptText(prompt);
    return Promise.resolve({ text, tokenIds: tokenize(text) });
  }

  detokenize(tokenIds: readonly number[]): string {
    checkTokenIds(tokenIds, this.model.vocabSize, "tokens");
    return String.fromCodePoint(...tokenIds);
  }

  tokenText(tokenId: number): string {
    return String.fromCodePoint(tokenId);
  }

  async submit(request: TextRequest, sink: Emit): Promise<TextHandle> {
    this.requests.push(request);
    await this.admit(request);
    this.#check(request);
    const { requestId } = request;
    setImmediate(() => {
      if (this.#isAborted(requestId)) return;
      this.generate(request, (output) => this.#isAborted(requestId) || sink(output));
    });
    const promptText = textOf(request);
    return {
      promptTokenIds: "tokenIds" in request.prompt ? request.prompt.tokenIds : tokenize(promptText),
      promptText,
      firstToken: "<s>",
    };
  }

  abort(requestId: string): void {
    this.aborted.push(requestId);
  }

  #isAborted(requestId: string): boolean {
    return this.aborted.includes(requestId);
  }

  /** The rules of the real service. */
  #check(request: TextRequest): void {
    const { maxModelLen, vocabSize, hasTokenizer } = this.model;
    const isTokens = "tokenIds" in request.prompt;
    if (!isTokens && !hasTokenizer) throw new RequestError("There is no tokenizer.", "prompt");
    const ids = "tokenIds" in request.prompt ? request.prompt.tokenIds : tokenize(textOf(request));
    if (isTokens) checkTokenIds(ids, vocabSize, "prompt");
    resolveSampling(request.sampling, {
      promptTokens: ids.length,
      promptField: "prompt",
      maxModelLen,
      vocabSize,
      maxLogprobs: Math.max(5, request.maxLogprobs ?? 0),
      eosTokenIds: [],
      defaultSampling: {},
      refuseOverlong: request.refuseOverlong ?? false,
      nextSeed: () => 0,
    });
  }
}

function textOf({ prompt }: TextRequest): string {
  return promptText(prompt);
}

function promptText(prompt: Prompt): string {
  if ("text" in prompt) return prompt.text;
  if ("tokenIds" in prompt) return String.fromCodePoint(...prompt.tokenIds);
  return prompt.messages.map(({ role, content }) => `<${role}>${content}`).join("");
}

/** Emits a piece per turn of the event loop; ends with `stop`, or with `length` at `maxTokens`. */
export function speak(pieces: readonly string[]): FakeTextService["generate"] {
  return (request, emit) => {
    const { maxTokens, logprobs, promptLogprobs } = request.sampling;
    const count = Math.min(pieces.length, maxTokens ?? pieces.length);
    let offset = 0;
    const next = (index: number) => {
      const piece = pieces[index];
      const wanted = typeof logprobs === "number";
      const isLast = index === count - 1;
      emit({
        text: piece,
        tokenIds: [index],
        ...(request.timestamps ? { timesMs: [1_700_000_000_000 + index] } : {}),
        ...(wanted ? { logprobs: [logprob(piece, offset, logprobs)] } : {}),
        ...(index === 0 && typeof promptLogprobs === "number"
          ? { promptLogprobs: promptLogprobsOf(textOf(request), promptLogprobs) }
          : {}),
        ...(isLast
          ? {
            finish: {
              reason: count === pieces.length ? "stop" as const : "length" as const,
              stopReason: null,
            },
          }
          : {}),
      });
      offset += piece.length;
      if (!isLast) setImmediate(() => next(index + 1));
    };
    next(0);
  };
}

/** A token whose only alternative is "?". */
function logprob(token: string, textOffset: number, topCount: number): TextLogprob {
  const bytes = [...new TextEncoder().encode(token)];
  const top = [
    { tokenId: 1, token, bytes, logprob: -0.5, textOffset },
    { tokenId: 2, token: "?", bytes: [63], logprob: -Infinity, textOffset },
  ];
  return {
    tokenId: 1,
    token,
    bytes,
    logprob: -0.5,
    rank: 1,
    textOffset,
    top: top.slice(0, topCount),
  };
}

function promptLogprobsOf(text: string, topCount: number): (TextLogprob | null)[] {
  return [...text].map((character, index) =>
    index === 0 ? null : logprob(character, index, topCount)
  );
}
