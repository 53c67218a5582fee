// Linear weights of 8 bits: each row is divided by a scale of its own, so that its largest weight is 448.
#include "fp8.h"

namespace {

constexpr int threads = 256, warps = threads / 32;

/// NaN is larger than everything.
__device__ __forceinline__ float larger(float a, float b) { return a >= b || a != a ? a : b; }

/// The same in all threads.
__device__ __forceinline__ float largestOfBlock(float value) {
  __shared__ float largestOfWarps[warps];
  for (int lanes = 16; lanes > 0; lanes /= 2) value = larger(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  if (threadIdx.x % 32 == 0) largestOfWarps[threadIdx.x / 32] = value;
  __syncthreads();
  value = largestOfWarps[0];
  for (int warp = 1; warp < warps; warp++) value = larger(value, largestOfWarps[warp]);
  return value;
}

/// codes [rows, inputs] and scales [rows], of weights [rows, inputs]: code * scale is the weight, rounded. A row with
/// NaN or infinity gets a scale that is not finite, so that nothing of it looks like a result. Grid [rows], 256
/// threads.
template <class T>
__device__ __forceinline__ void quantizeRows(const T* weights, e4m3* codes, float* scales, int inputs) {
  const T* from = weights + size_t(blockIdx.x) * inputs;
  e4m3* to = codes + size_t(blockIdx.x) * inputs;
  float largest = 0;
  for (int i = int(threadIdx.x); i < inputs; i += threads) largest = larger(largest, fabsf(widen(from[i])));
  largest = largestOfBlock(largest);
  const float scale = largest == 0.0f ? 1.0f : largest / 448.0f;
  for (int i = int(threadIdx.x); i < inputs; i += threads) narrow(widen(from[i]) / scale, to[i]);
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    quantize_rows_bf16(const bf16* __restrict__ weights, e4m3* __restrict__ codes, float* __restrict__ scales,
                       int inputs) {
  quantizeRows(weights, codes, scales, inputs);
}
extern "C" __global__ void __launch_bounds__(256)
    quantize_rows_f16(const f16* __restrict__ weights, e4m3* __restrict__ codes, float* __restrict__ scales,
                      int inputs) {
  quantizeRows(weights, codes, scales, inputs);
}
