/**
 * The printable character that stands for each byte in a byte-level vocabulary: GPT-2's alphabet
 * (openai/gpt-2, encoder.py, `bytes_to_unicode`). All are single UTF-16 units.
 * @returns [256], by byte
 */
export function byteCharacters(): string[] {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  let substitute = 256;
  return Array.from(
    { length: 256 },
    (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : substitute++),
  );
}
