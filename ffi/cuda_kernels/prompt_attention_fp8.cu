// The kernels of prompt_attention.cu for a cache of 8 bits.
#define TEMPLATES_ONLY
#include "prompt_attention.cu"

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_bf16_kv8_64(const float* __restrict__ qkv, const int* __restrict__ starts,
                                const int* __restrict__ lengths, const int* __restrict__ tables,
                                e4m3* __restrict__ layer, long long blockStride, bf16* __restrict__ output,
                                int blockShift, int kvHeads, int headDim, int heads, int maxBlocks, int window,
                                float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<bf16, 64>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_bf16_kv8_128(const float* __restrict__ qkv, const int* __restrict__ starts,
                                const int* __restrict__ lengths, const int* __restrict__ tables,
                                e4m3* __restrict__ layer, long long blockStride, bf16* __restrict__ output,
                                int blockShift, int kvHeads, int headDim, int heads, int maxBlocks, int window,
                                float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<bf16, 128>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_f16_kv8_64(const float* __restrict__ qkv, const int* __restrict__ starts,
                                const int* __restrict__ lengths, const int* __restrict__ tables,
                                e4m3* __restrict__ layer, long long blockStride, f16* __restrict__ output,
                                int blockShift, int kvHeads, int headDim, int heads, int maxBlocks, int window,
                                float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<f16, 64>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_f16_kv8_128(const float* __restrict__ qkv, const int* __restrict__ starts,
                                const int* __restrict__ lengths, const int* __restrict__ tables,
                                e4m3* __restrict__ layer, long long blockStride, f16* __restrict__ output,
                                int blockShift, int kvHeads, int headDim, int heads, int maxBlocks, int window,
                                float scale) {
  const Cache<e4m3> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<f16, 128>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}
