/** How long a piece of a prompt may hold up the decodes of others, beyond one decode step. */
const PIECE_MS = 150;
/** The same where no other request runs: a request that comes meanwhile, or an abort, waits so long. */
const ALONE_MS = 1_000;
/** Tokens of a piece while no rate is known. */
const FIRST_TOKENS = 16;
/** Weight of the newest step in a measured rate. */
const SMOOTHING = 0.5;

/** What a token of a prompt takes, in milliseconds, in the steps so far. */
interface Rate {
  readonly tokenMs: number;
  /** Beyond a decode step, which reads the weights as well. */
  readonly extraTokenMs: number;
}

/**
 * How many tokens of a prompt go into one step, for executors on which a long prompt takes seconds.
 * A prompt is cut into pieces, and a decode step of the other requests runs between two of them, so
 * that no prompt delays a running request by more than about {@linkcode PIECE_MS}. An abort takes
 * effect at the end of a piece. How a prompt is cut never changes its results.
 *
 * A token far into a long prompt takes many times as long as one at the beginning of a prompt, because it
 * attends to all before it. So later pieces have a rate of their own.
 */
export class PrefillPieces {
  readonly #maxTokens: number;
  /** Of all steps that computed prompts. */
  #tokenMs: number | null = null;
  /** Of steps that begin prompts. */
  #first: Rate | null = null;
  /** Of later pieces of the prompt that is computed in pieces; null before its second. */
  #later: Rate | null = null;
  #decodeMs = 0;

  /** @param maxTokens of a piece, whatever its time; Infinity: prompts are never cut */
  constructor(maxTokens: number) {
    this.#maxTokens = maxTokens;
  }

  /** Whether prompts are cut at all. */
  get areCut(): boolean {
    return this.#maxTokens !== Infinity;
  }

  /** Milliseconds that a token of a prompt takes; null until a prompt has been computed. */
  get tokenMs(): number | null {
    return this.#tokenMs;
  }

  /**
   * Takes the time of a step that has ended.
   * @param isLaterPiece the step computed a piece of a prompt, and not the first
   */
  note(
    kind: "prefill" | "decode",
    tokens: number,
    latencyMs: number,
    isLaterPiece = false,
  ): void {
    if (kind === "decode") {
      this.#decodeMs = latencyMs;
    } else if (tokens > 0) {
      this.#tokenMs = smooth(this.#tokenMs, latencyMs / tokens);
      if (isLaterPiece) this.#later = this.#updated(this.#later, tokens, latencyMs);
      else this.#first = this.#updated(this.#first, tokens, latencyMs);
    }
  }

  /** The next piece is the first one of its prompt. */
  begin(): void {
    this.#later = null;
  }

  /**
   * Most tokens of the next step that computes prompts.
   * @param delaysOthers whether running requests wait for the step to end
   * @param isLaterPiece whether the step goes on with a prompt
   */
  maxTokens(delaysOthers: boolean, isLaterPiece = false): number {
    if (!this.areCut) return this.#maxTokens;
    const rate = isLaterPiece ? this.#later ?? this.#first : this.#first;
    if (rate === null) return Math.min(this.#maxTokens, FIRST_TOKENS);
    const limitMs = (delaysOthers ? PIECE_MS : ALONE_MS) + this.#decodeMs;
    // Where reading the weights takes most of a step, more tokens would hardly make it longer.
    const cheap = Math.min(FIRST_TOKENS, Math.floor(limitMs / rate.extraTokenMs));
    const tokens = Math.max(1, cheap, Math.floor(limitMs / rate.tokenMs));
    return Math.min(tokens, this.#maxTokens);
  }

  #updated(rate: Rate | null, tokens: number, latencyMs: number): Rate {
    const extraMs = Math.max(0, latencyMs - this.#decodeMs);
    return {
      tokenMs: smooth(rate?.tokenMs ?? null, latencyMs / tokens),
      extraTokenMs: smooth(rate?.extraTokenMs ?? null, extraMs / tokens),
    };
  }
}

function smooth(average: number | null, newest: number): number {
  return average === null ? newest : average + SMOOTHING * (newest - average);
}
