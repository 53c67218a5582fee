// The kernels of decode_attention.cu for a cache of 8 bits.
#define TEMPLATES_ONLY
#include "decode_attention.cu"

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_bf16_kv8_64(const float* qkv, const float* __restrict__ queryNorm,
                                const float* __restrict__ keyNorm, const float* __restrict__ rope,
                                const int* __restrict__ positions, const int* __restrict__ sequences,
                                const int* __restrict__ tables, e4m3* layer, long long blockStride, bf16* output,
                                float* partials, unsigned* finished, int blockShift, int kvHeads, int headDim,
                                int heads, int maxBlocks, int window, int stages, float scale, float epsilon) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<bf16, 64>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_bf16_kv8_128(const float* qkv, const float* __restrict__ queryNorm,
                                const float* __restrict__ keyNorm, const float* __restrict__ rope,
                                const int* __restrict__ positions, const int* __restrict__ sequences,
                                const int* __restrict__ tables, e4m3* layer, long long blockStride, bf16* output,
                                float* partials, unsigned* finished, int blockShift, int kvHeads, int headDim,
                                int heads, int maxBlocks, int window, int stages, float scale, float epsilon) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<bf16, 128>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_f16_kv8_64(const float* qkv, const float* __restrict__ queryNorm,
                                const float* __restrict__ keyNorm, const float* __restrict__ rope,
                                const int* __restrict__ positions, const int* __restrict__ sequences,
                                const int* __restrict__ tables, e4m3* layer, long long blockStride, f16* output,
                                float* partials, unsigned* finished, int blockShift, int kvHeads, int headDim,
                                int heads, int maxBlocks, int window, int stages, float scale, float epsilon) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<f16, 64>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_f16_kv8_128(const float* qkv, const float* __restrict__ queryNorm,
                                const float* __restrict__ keyNorm, const float* __restrict__ rope,
                                const int* __restrict__ positions, const int* __restrict__ sequences,
                                const int* __restrict__ tables, e4m3* layer, long long blockStride, f16* output,
                                float* partials, unsigned* finished, int blockShift, int kvHeads, int headDim,
                                int heads, int maxBlocks, int window, int stages, float scale, float epsilon) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<f16, 128>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}
