/** Text as the base64 of its UTF-8, in which etcd's JSON gateway writes bytes. */
export function encodeBase64(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}

/** Bytes that are no UTF-8 become U+FFFD. */
export function decodeBase64(base64: string): string {
  return new TextDecoder().decode(Uint8Array.fromBase64(base64));
}
