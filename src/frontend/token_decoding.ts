import { byteCharacters } from "../core/byte_alphabet.ts";
import { ModelError } from "../core/errors.ts";
import { encodeUtf8 } from "./utf8.ts";

/**
 * How token strings of the vocabulary become text: the `decoder` of tokenizer.json, reduced to what
 * can be applied token by token. There are two families. In byte-level decoders every character of a token
 * stands for a byte. In piecewise (SentencePiece-like) decoders a token is text, except byte tokens `<0xNN>`.
 */
export interface TokenDecoding {
  /** Every token is a run of bytes in GPT-2's alphabet. */
  readonly byteLevel: boolean;
  /** Tokens `<0xNN>` are bytes. */
  readonly byteFallback: boolean;
  /** Text of a token that is not a byte; bytes are handled by the caller. */
  readonly tokenText: (token: string) => string;
  /** Text of the first token of a sequence; null when the first is like any other. */
  readonly firstText: ((token: string) => string) | null;
  /** Spaces removed from the beginning of a decoded sequence. */
  readonly leadingSpaces: number;
}

interface DecoderJson {
  readonly type: string;
  readonly decoders?: readonly DecoderJson[];
  readonly pattern?: { readonly String?: string };
  readonly content?: string;
  readonly start?: number;
  readonly stop?: number;
  readonly replacement?: string;
  readonly prepend_scheme?: string;
}

/**
 * Reads the `decoder` of a tokenizer.json.
 * @throws {ModelError} a decoder that cannot be applied token by token
 */
export function parseDecoder(json: unknown): TokenDecoding {
  const decoder = json as DecoderJson | null;
  const steps = decoder?.type === "Sequence" ? decoder.decoders ?? [] : decoder ? [decoder] : [];
  if (steps.length === 0) throw unsupported("none");
  if (steps.some((step) => step.type === "ByteLevel")) {
    if (steps.length > 1) throw unsupported(describe(steps));
    return {
      byteLevel: true,
      byteFallback: false,
      tokenText: (token) => token,
      firstText: null,
      leadingSpaces: 0,
    };
  }
  return parsePiecewise(steps);
}

function parsePiecewise(steps: readonly DecoderJson[]): TokenDecoding {
  const replacements: [pattern: string, content: string][] = [];
  let byteFallback = false, fused = false, leadingSpaces = 0;
  let dropped: string | null = null;
  for (const step of steps) {
    if (step.type === "Replace" && step.pattern?.String !== undefined) {
      replacements.push([step.pattern.String, step.content ?? ""]);
    } else if (step.type === "Metaspace") {
      const replacement = step.replacement ?? "▁";
      // tokenizers, pre_tokenizers/metaspace.rs: the first token loses every replacement character.
      if (step.prepend_scheme !== "never") dropped = replacement;
      replacements.push([replacement, " "]);
    } else if (step.type === "ByteFallback") {
      byteFallback = true;
    } else if (step.type === "Fuse") {
      fused = true;
    } else if (step.type === "Strip" && fused && step.content === " " && !step.stop) {
      leadingSpaces += step.start ?? 0;
    } else {
      throw unsupported(describe(steps));
    }
  }
  const tokenText = (token: string) =>
    replacements.reduce((text, [pattern, content]) => text.replaceAll(pattern, content), token);
  const firstText = dropped === null
    ? null
    : (token: string) => tokenText(token.replaceAll(dropped, ""));
  return { byteLevel: false, byteFallback, tokenText, firstText, leadingSpaces };
}

function describe(steps: readonly DecoderJson[]): string {
  return steps.map((step) => step.type).join(", ");
}

function unsupported(found: string): ModelError {
  return new ModelError(
    `tokenizer.json has a decoder that is not supported: ${found}. Supported are ByteLevel, and ` +
      `sequences of Replace, Metaspace, ByteFallback, Fuse and (after Fuse) Strip of leading ` +
      `spaces. With --skip-tokenizer-init the model serves token ids instead of text.`,
  );
}

/** The byte of a byte token `<0xNN>`, or null. */
export function fallbackByte(token: string): number | null {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  return match ? parseInt(match[1], 16) : null;
}

/**
 * The bytes of a byte-level token. A token with a character outside the alphabet (an added token)
 * stands for its own UTF-8 bytes (tokenizers, decoders of byte_level.rs).
 */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfCharacter.get(token.charCodeAt(i));
    if (byte === undefined) return encodeUtf8(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** Bytes by the code units that stand for them. */
const byteOfCharacter: ReadonlyMap<number, number> = new Map(
  byteCharacters().map((character, byte) => [character.charCodeAt(0), byte]),
);
