/**
 * What a request asks of its tokens beyond their probabilities: `logit_bias`, `allowed_token_ids` and
 * `bad_words`, in vLLM's order (v1/worker/gpu, apply_allowed_token_ids and apply_bad_words). They depend on the
 * parameters and the output so far alone, so a request that moves goes on as it would have.
 */
import type { LogitEdits } from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import type { SamplingParams } from "../../core/protocol/generate.ts";

export class TokenRestrictions {
  readonly #bias: readonly (readonly [tokenId: number, bias: number])[];
  readonly #allowed: readonly number[] | null;
  /** Values of the allowed tokens while all others are excluded. */
  readonly #kept: Float32Array;
  readonly #badWords: readonly (readonly number[])[];
  /** The end of the output, as long as the longest bad word without its last token. */
  readonly #recent: number[] = [];
  readonly #maxRecent: number;

  constructor({ logitBias, allowedTokenIds, badWords }: SamplingParams, vocabSize: number) {
    const exists = (id: number) => id >= 0 && id < vocabSize;
    this.#bias = (logitBias ?? []).filter(([id]) => exists(id));
    const allowed = allowedTokenIds?.filter(exists) ?? [];
    this.#allowed = allowed.length > 0 ? allowed : null;
    this.#kept = new Float32Array(allowed.length);
    this.#badWords = (badWords ?? []).filter((word) => word.length > 0 && exists(word.at(-1)!));
    this.#maxRecent = Math.max(0, ...this.#badWords.map((word) => word.length - 1));
  }

  /** Null where the request has no restrictions. */
  static of(params: SamplingParams, vocabSize: number): TokenRestrictions | null {
    const { logitBias, allowedTokenIds, badWords } = params;
    const some = [logitBias, allowedTokenIds, badWords].some((list) => (list?.length ?? 0) > 0);
    return some ? new TokenRestrictions(params, vocabSize) : null;
  }

  /** Takes a token of the output into account. */
  record(tokenId: number): void {
    if (this.#maxRecent === 0) return;
    this.#recent.push(tokenId);
    if (this.#recent.length > this.#maxRecent) this.#recent.shift();
  }

  /** What a device needs to do the same. Null where a list names a token twice: its order counts then. */
  edits(): Pick<LogitEdits, "bias" | "allowed" | "excluded"> | null {
    const allowed = this.#allowed === null ? null : [...new Set(this.#allowed)];
    if (new Set(this.#bias.map(([id]) => id)).size < this.#bias.length) return null;
    const excluded = this.#badWords.filter((word) => this.#endsWith(word, word.length - 1));
    return {
      bias: this.#bias,
      allowed,
      excluded: [...new Set(excluded.map((word) => word.at(-1)!))],
    };
  }

  /** @param logits [vocab]; changed. At least one token stays possible, if one was. */
  apply(logits: Float32Array): void {
    for (const [id, bias] of this.#bias) logits[id] += bias;
    if (this.#allowed !== null) this.#keepAllowed(logits, this.#allowed);
    this.#excludeBadWords(logits);
  }

  #keepAllowed(logits: Float32Array, allowed: readonly number[]): void {
    allowed.forEach((id, i) => this.#kept[i] = logits[id]);
    // NaN stays where it is, so that a broken model is noticed.
    for (let id = 0; id < logits.length; id++) if (logits[id] < Infinity) logits[id] = -Infinity;
    allowed.forEach((id, i) => logits[id] = this.#kept[i]);
  }

  #excludeBadWords(logits: Float32Array): void {
    const excluded: [id: number, logit: number][] = [];
    for (const word of this.#badWords) {
      if (!this.#endsWith(word, word.length - 1)) continue;
      const last = word.at(-1)!;
      excluded.push([last, logits[last]]);
      logits[last] = -Infinity;
    }
    if (excluded.length === 0 || logits.some((logit) => logit !== -Infinity)) return;
    // Nothing would be left to choose: the last resort is what was excluded.
    for (const [id, logit] of excluded.reverse()) logits[id] = logit;
  }

  /** Whether the output ends with the first `length` tokens of a word. */
  #endsWith(word: readonly number[], length: number): boolean {
    const from = this.#recent.length - length;
    if (from < 0) return false;
    for (let i = 0; i < length; i++) if (this.#recent[from + i] !== word[i]) return false;
    return true;
  }
}
