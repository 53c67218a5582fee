/** Layout of `CUmemcpyAttributes` and `cudaMemcpyAttributes`, which agree. */
export const copyAttributesLayout = {
  byteLength: 24,
  srcAccessOrder: 0,
  srcLocHint: 4,
  dstLocHint: 12,
  flags: 20,
} as const;

/** CU_MEMCPY_SRC_ACCESS_ORDER_STREAM: a source is read in the order of the stream, not before. */
export const srcAccessOrderStream = 1;

/** The attributes of all copies of a batch, without hints of where the memory is. */
export function encodeCopyAttributes(): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(copyAttributesLayout.byteLength));
  view.setInt32(copyAttributesLayout.srcAccessOrder, srcAccessOrderStream, true);
  return new Uint8Array(view.buffer);
}
