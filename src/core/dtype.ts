/** Element types of weights, activations and KV cache. */
export type DType = "float32" | "float16" | "bfloat16";

/** What instances must have in common to compute the same: the type, and that of weights in another one. */
export function servedType(dtype: DType, quantization: string | null): string {
  return quantization === null ? dtype : `${dtype}, weights in ${quantization}`;
}

/** How a KV cache may be stored besides: 8 bits, of which 4 are the exponent and 3 the mantissa. */
export type CacheDType = DType | "float8_e4m3";

const bytes: Readonly<Record<CacheDType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  float8_e4m3: 1,
};

/** Bytes of one element. */
export function dtypeBytes(dtype: CacheDType): number {
  return bytes[dtype];
}
