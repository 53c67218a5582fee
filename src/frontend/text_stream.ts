import type { RequestOutput, TokenLogprobs } from "../core/protocol/generate.ts";
import type { TokenIds } from "../core/token_ids.ts";
import type { Detokenizer } from "./detokenizer.ts";
import type { TextLogprob, TextOutput, TextRequest } from "./service.ts";
import { StopChecker, StopStrings } from "./stop_checker.ts";
import { codePoints, toPromptLogprobs, toTextLogprob } from "./token_logprobs.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface TextStreamOptions {
  readonly request: TextRequest;
  readonly promptTokenIds: TokenIds;
  readonly tokenizer: Tokenizer | null;
  readonly minTokens: number;
  readonly nowMs: () => number;
}

/** Turns one request's output tokens into text, up to its end or a stop string. */
export class TextStream {
  readonly #options: TextStreamOptions;
  /** Null when no text was asked for. */
  readonly #detokenizer: Detokenizer | null;
  readonly #stop: StopChecker | null;
  #outputTokens = 0;
  /** Characters that came out of the detokenizer. */
  #characters = 0;

  constructor(options: TextStreamOptions) {
    this.#options = options;
    const { request: { text }, promptTokenIds, tokenizer } = options;
    this.#detokenizer = tokenizer && text.detokenize
      ? tokenizer.detokenizer({ skipSpecialTokens: text.skipSpecialTokens, promptTokenIds })
      : null;
    this.#stop = text.stop.length > 0
      ? new StopChecker(StopStrings.of(text.stop), text.includeStopStrInOutput)
      : null;
  }

  /** Tokens that were delivered. */
  get outputTokens(): number {
    return this.#outputTokens;
  }

  /**
   * Text of newly arrived tokens. The first result with `finish` is the last: a stop string can end
   * the output before `output` has a finish, and the tokens after it are left out.
   */
  next(output: RequestOutput): TextOutput {
    const { finish } = output;
    const logprobs: TextLogprob[] | undefined = output.logprobs && [];
    const wanted = this.#options.request.text;
    // The text of a stop token is left out, unless the request asks for it (vLLM, stop_checker.py).
    const silent = finish?.reason === "stop" && !wanted.includeStopStrInOutput
      ? output.tokenIds.length - 1
      : -1;
    let text = "", taken = 0;
    while (taken < output.tokenIds.length && !this.#stop?.match) {
      if (logprobs) logprobs.push(this.#logprob(output.logprobs![taken]));
      this.#outputTokens++;
      if (taken !== silent && this.#detokenizer) {
        text += this.#check(this.#detokenizer.push(output.tokenIds[taken]));
      }
      taken++;
    }
    if (finish && !this.#stop?.match) text += this.#flush();
    return {
      text,
      tokenIds: taken === output.tokenIds.length
        ? output.tokenIds
        : output.tokenIds.slice(0, taken),
      ...(logprobs && { logprobs }),
      ...this.#extras(output, taken),
      ...this.#finish(output),
    };
  }

  /** Passes new text through the stop strings. */
  #check(text: string): string {
    this.#characters += codePoints(text);
    if (this.#stop === null) return text;
    return this.#stop.push(text, this.#outputTokens >= this.#options.minTokens);
  }

  /** The text that is still held back when the output ends. */
  #flush(): string {
    const text = this.#check(this.#detokenizer?.flush() ?? "");
    return this.#stop === null || this.#stop.match !== null ? text : text + this.#stop.flush();
  }

  #logprob(logprobs: TokenLogprobs): TextLogprob {
    return toTextLogprob(logprobs, this.#options.tokenizer, this.#characters);
  }

  #extras(output: RequestOutput, taken: number): Partial<TextOutput> | undefined {
    const { request, promptTokenIds, tokenizer, nowMs } = this.#options;
    const { promptLogprobs, timing, prefillMs } = output;
    if (!promptLogprobs && !request.timestamps && !timing && prefillMs === undefined) {
      return undefined;
    }
    return {
      ...(promptLogprobs &&
        { promptLogprobs: toPromptLogprobs(promptLogprobs, promptTokenIds, tokenizer) }),
      ...(request.timestamps && { timesMs: new Array<number>(taken).fill(nowMs()) }),
      ...(timing && { timing }),
      ...(prefillMs !== undefined && { prefillMs }),
    };
  }

  #finish({ finish }: RequestOutput): Pick<TextOutput, "finish"> | undefined {
    const match = this.#stop?.match ?? null;
    if (match !== null) return { finish: { reason: "stop", stopReason: match } };
    if (finish === undefined) return undefined;
    return {
      finish: {
        reason: finish.reason,
        stopReason: finish.stopTokenId ?? null,
        ...(finish.error && { error: finish.error }),
      },
    };
  }
}
