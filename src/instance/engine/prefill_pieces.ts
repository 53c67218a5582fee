/** How long a piece of a prompt may hold up the decodes of others, beyond one decode step. */
const PIECE_MS = 150;
/** Below this, reading the weights costs more than computing the tokens. */
const MIN_PIECE_TOKENS = 16;
/** Weight of the newest step in the measured rate. */
const SMOOTHING = 0.5;

/**
 * How many tokens of a prompt go into one step, for executors on which a long prompt takes seconds.
 * A prompt is cut into pieces, and a decode step of the other requests runs between two of them, so
 * that no prompt delays a running request by more than about {@linkcode PIECE_MS}. An abort takes
 * effect at the end of a piece. How a prompt is cut never changes its results.
 */
export class PrefillPieces {
  readonly #maxTokens: number;
  /** Milliseconds that a token of a prompt takes; null until a prompt has been computed. */
  #tokenMs: number | null = null;
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

  /** Takes the time of a step that has ended. */
  note(kind: "prefill" | "decode", tokens: number, latencyMs: number): void {
    if (kind === "decode") {
      this.#decodeMs = latencyMs;
    } else if (tokens > 0) {
      const tokenMs = latencyMs / tokens;
      this.#tokenMs = this.#tokenMs === null
        ? tokenMs
        : this.#tokenMs + SMOOTHING * (tokenMs - this.#tokenMs);
    }
  }

  /**
   * Most tokens of the next step that computes prompts.
   * @param delaysOthers whether running requests wait for the step to end
   */
  maxTokens(delaysOthers: boolean): number {
    if (!this.areCut || !delaysOthers) return this.#maxTokens;
    if (this.#tokenMs === null) return Math.min(this.#maxTokens, MIN_PIECE_TOKENS);
    const tokens = Math.floor((PIECE_MS + this.#decodeMs) / this.#tokenMs);
    return Math.max(Math.min(MIN_PIECE_TOKENS, this.#maxTokens), Math.min(tokens, this.#maxTokens));
  }
}
