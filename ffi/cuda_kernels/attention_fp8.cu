// The kernels of attention.cu for a cache of 8 bits.
#define TEMPLATES_ONLY
#include "fp8.h"
#include "attention.cu"

extern "C" __global__ void __launch_bounds__(128)
    prepare_heads_kv8(float* __restrict__ qkv, const float* __restrict__ queryNorm,
                      const float* __restrict__ keyNorm, const float* __restrict__ rope,
                      const int* __restrict__ positions, const int* __restrict__ slots, e4m3* __restrict__ layer,
                      long long blockStride, int blockShift, int kvHeads, int headDim, int heads, float epsilon) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  prepareHeads(qkv, queryNorm, keyNorm, rope, positions, slots, cache, heads, epsilon);
}

extern "C" __global__ void __launch_bounds__(128)
    attend_bf16_kv8(const float* __restrict__ qkv, const int* __restrict__ positions,
                   const int* __restrict__ sequences, const int* __restrict__ tables, e4m3* __restrict__ layer,
                   long long blockStride, bf16* __restrict__ output, float* __restrict__ partials, int blockShift,
                   int kvHeads, int headDim, int heads, int maxBlocks, int window, float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  attend(qkv, positions, sequences, tables, cache, output, partials, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128)
    attend_f16_kv8(const float* __restrict__ qkv, const int* __restrict__ positions,
                   const int* __restrict__ sequences, const int* __restrict__ tables, e4m3* __restrict__ layer,
                   long long blockStride, f16* __restrict__ output, float* __restrict__ partials, int blockShift,
                   int kvHeads, int headDim, int heads, int maxBlocks, int window, float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  attend(qkv, positions, sequences, tables, cache, output, partials, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128)
    attend_f32_kv8(const float* __restrict__ qkv, const int* __restrict__ positions,
                   const int* __restrict__ sequences, const int* __restrict__ tables, e4m3* __restrict__ layer,
                   long long blockStride, f32* __restrict__ output, float* __restrict__ partials, int blockShift,
                   int kvHeads, int headDim, int heads, int maxBlocks, int window, float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  attend(qkv, positions, sequences, tables, cache, output, partials, heads, maxBlocks, window, scale);
}
