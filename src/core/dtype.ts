/** Element types of weights, activations and KV cache. */
export type DType = "float32" | "float16" | "bfloat16";

/** Bytes of one element. */
export function dtypeBytes(dtype: DType): number {
  return dtype === "float32" ? 4 : 2;
}
