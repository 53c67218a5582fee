import { byteLevelBytes, fallbackByte, type TokenDecoding } from "./token_decoding.ts";
import { decodeUtf8, decodeUtf8Strictly, encodeUtf8 } from "./utf8.ts";

/** A token as log probabilities show it. */
export interface TokenDisplay {
  /** Has U+FFFD in place of bytes that are no whole character. */
  readonly token: string;
  /** UTF-8; may be part of a character. */
  readonly bytes: readonly number[];
}

/**
 * Text and bytes of every token, computed when they are first needed. All requests that treat special tokens
 * alike share one table.
 */
export class TokenTable {
  /** Text by id, as far as it is computed: null for tokens that are not text by themselves. */
  readonly texts: readonly (string | null | undefined)[];
  readonly #displays = new Map<number, TokenDisplay>();
  readonly #texts: (string | null | undefined)[];

  /**
   * @param tokens token strings by id; unknown ids stand for nothing
   * @param skipped ids that decode to nothing
   */
  constructor(
    readonly decoding: TokenDecoding,
    private readonly tokens: readonly (string | undefined)[],
    private readonly skipped: ReadonlySet<number>,
  ) {
    this.#texts = new Array(tokens.length);
    this.texts = this.#texts;
  }

  /** Whether the beginning of a sequence is decoded differently. */
  get hasSpecialStart(): boolean {
    return this.decoding.firstText !== null || this.decoding.leadingSpaces > 0;
  }

  /** Text of a token: empty if the token is skipped or unknown, null if its bytes are not whole characters. */
  text(id: number): string | null {
    const known = this.#texts[id];
    if (known !== undefined) return known;
    // Ids outside the vocabulary must not make the table grow.
    if (this.tokens[id] === undefined) return "";
    return this.#texts[id] = this.#decode(id);
  }

  /** Text of a token that begins a sequence. */
  firstText(id: number): string {
    return this.decoding.firstText?.(this.tokens[id] ?? "") ?? this.text(id) ?? "";
  }

  /** UTF-8 bytes that a token stands for, skipped or not; empty when it is unknown. */
  bytes(id: number): Uint8Array {
    const token = this.tokens[id];
    if (token === undefined) return new Uint8Array();
    if (this.decoding.byteLevel) return byteLevelBytes(token);
    const byte = this.decoding.byteFallback ? fallbackByte(token) : null;
    return byte !== null ? Uint8Array.of(byte) : encodeUtf8(this.decoding.tokenText(token));
  }

  /** A token by itself, skipped or not. */
  display(id: number): TokenDisplay {
    let display = this.#displays.get(id);
    if (display === undefined) {
      const bytes = this.bytes(id);
      display = { token: decodeUtf8(bytes), bytes: [...bytes] };
      if (this.tokens[id] !== undefined) this.#displays.set(id, display);
    }
    return display;
  }

  #decode(id: number): string | null {
    const token = this.tokens[id]!;
    if (this.skipped.has(id)) return "";
    if (this.decoding.byteLevel) return decodeUtf8Strictly(byteLevelBytes(token));
    if (this.decoding.byteFallback && fallbackByte(token) !== null) return null;
    return this.decoding.tokenText(token);
  }
}
