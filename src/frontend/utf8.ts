/** UTF-8 as a stream of bytes cut anywhere. */

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const strictDecoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/** UTF-8 bytes of a text. */
export function encodeUtf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/**
 * Text of bytes; each maximal part of an ill-formed sequence becomes U+FFFD (Unicode 3.9, as Rust's
 * `from_utf8_lossy`).
 */
export function decodeUtf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Text of bytes, or null when they are not well-formed UTF-8. */
export function decodeUtf8Strictly(bytes: Uint8Array): string | null {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return null;
  }
}

/**
 * Length of the suffix that is the beginning of a character and could still become a whole one: 0
 * to 3 bytes.
 */
export function incompleteSuffixBytes(bytes: ArrayLike<number>): number {
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const lead = bytes[bytes.length - length];
    if ((lead & 0xc0) === 0x80) continue;
    if (characterBytes(lead) <= length) return 0;
    return length === 1 || isSecondByte(lead, bytes[bytes.length - length + 1]) ? length : 0;
  }
  return 0;
}

/** Bytes of the character that `lead` begins; 0 when it begins none. */
function characterBytes(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/** Whether `second`, a continuation byte, may follow `lead` (Unicode table 3-7). */
function isSecondByte(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second < 0xa0;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second < 0x90;
  return true;
}
