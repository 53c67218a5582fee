/** Small tools of the bindings: texts of C, addresses of buffers, views of native memory. */

const encoder = new TextEncoder();

/** A text as C takes it, with its zero byte. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(`${text}\0`);
}

/** The text at a pointer to a C string, "" for a null pointer. */
export function textAt(pointer: Deno.PointerValue): string {
  return pointer === null ? "" : Deno.UnsafePointerView.getCString(pointer);
}

/**
 * Zeroed bytes at an address that stays: V8 may move a small typed array that has no ArrayBuffer of
 * its own.
 */
export function nativeBuffer(byteLength: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(byteLength));
}

/**
 * Address of a buffer's first byte. The caller keeps the buffer reachable while native code uses the
 * address.
 */
export function addressOf(buffer: ArrayBufferView<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

/** View of native memory. It must not be used after the memory is freed, nor be transferred. */
export function bytesAt(address: bigint, byteLength: number): Uint8Array<ArrayBuffer> {
  const pointer = Deno.UnsafePointer.create(address);
  if (pointer === null) throw new RangeError("bytesAt: the null address has no bytes");
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, byteLength));
}
