import type { StorageType } from "./kernels.ts";

/** Numbers of `enum storage` in simd.h. */
export const storageCodes: Record<StorageType, number> = { float32: 0, float16: 1, bfloat16: 2 };
export const storageBytes: Record<StorageType, number> = { float32: 4, float16: 2, bfloat16: 2 };
