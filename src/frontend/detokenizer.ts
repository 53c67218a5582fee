import type { TokenIds } from "../core/token_ids.ts";
import type { TokenTable } from "./token_table.ts";
import { decodeUtf8, decodeUtf8Strictly, incompleteSuffixBytes } from "./utf8.ts";

/**
 * Turns tokens into text one at a time. Each piece consists of whole characters. Joined, the pieces are
 * the text that decoding prompt and output together adds to the prompt's text.
 *
 * A character whose bytes are spread over tokens is held back until it is whole. Byte tokens
 * (`<0xNN>`) are held until the run of them ends, because one ill-formed character in a run turns
 * each of its bytes into U+FFFD (tokenizers, byte_fallback.rs).
 */
export class Detokenizer {
  readonly #table: TokenTable;
  /** Text by token id where a token alone is text; the fast path. */
  readonly #texts: readonly (string | null | undefined)[];
  #pending: number[];
  /** True before the first token with text, if the decoder treats the beginning of a sequence differently. */
  #atStart: boolean;
  /** Spaces still to be removed from the beginning. */
  #leadingSpaces = 0;

  /** @param promptTokenIds tokens before the output; they decide about leading spaces */
  constructor(table: TokenTable, promptTokenIds: TokenIds = []) {
    this.#table = table;
    this.#texts = table.texts;
    this.#pending = incompletePromptBytes(table, promptTokenIds);
    this.#atStart = table.hasSpecialStart && !promptTokenIds.some((id) => table.text(id) !== "");
    if (this.#atStart) this.#leadingSpaces = table.decoding.leadingSpaces;
  }

  /** New text after token `id`; empty while a character is incomplete. */
  push(id: number): string {
    const text = this.#texts[id];
    if (typeof text === "string" && !this.#atStart && this.#pending.length === 0) return text;
    return this.#pushSlowly(id);
  }

  /** Text that was held back; an incomplete character becomes U+FFFD. */
  flush(): string {
    return this.#stripStart(this.#takePending());
  }

  #pushSlowly(id: number): string {
    const text = this.#table.text(id);
    if (text === "") return "";
    if (text !== null) {
      const held = this.#takePending();
      const first = this.#atStart && held === "" ? this.#table.firstText(id) : text;
      return this.#stripStart(held + first);
    }
    for (const byte of this.#table.bytes(id)) this.#pending.push(byte);
    return this.#table.decoding.byteLevel ? this.#takeWholeCharacters() : "";
  }

  /** Decodes the pending bytes, except an incomplete character at their end. */
  #takeWholeCharacters(): string {
    const held = incompleteSuffixBytes(this.#pending);
    const whole = this.#pending.splice(0, this.#pending.length - held);
    return whole.length === 0 ? "" : decodeUtf8(Uint8Array.from(whole));
  }

  #takePending(): string {
    if (this.#pending.length === 0) return "";
    const bytes = Uint8Array.from(this.#pending);
    this.#pending = [];
    if (this.#table.decoding.byteLevel) return decodeUtf8(bytes);
    return decodeUtf8Strictly(bytes) ?? "\ufffd".repeat(bytes.length);
  }

  #stripStart(text: string): string {
    if (!this.#atStart) return text;
    let spaces = 0;
    while (spaces < this.#leadingSpaces && text[spaces] === " ") spaces++;
    this.#leadingSpaces -= spaces;
    this.#atStart = this.#leadingSpaces > 0 && spaces === text.length;
    return text.slice(spaces);
  }
}

/** Bytes at the end of the prompt that begin a character which the output may complete. */
function incompletePromptBytes(table: TokenTable, promptTokenIds: TokenIds): number[] {
  const bytes: number[] = [];
  for (let i = promptTokenIds.length - 1; i >= 0 && bytes.length < 4; i--) {
    const text = table.text(promptTokenIds[i]);
    if (text === null) bytes.unshift(...table.bytes(promptTokenIds[i]));
    else if (text !== "") break;
  }
  return bytes.slice(bytes.length - incompleteSuffixBytes(bytes));
}
