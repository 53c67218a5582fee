// Linear layers: y = x W^T + bias for any number of rows of x. W is [outputs, inputs], row-major.
//
// The order of a sum depends on the number of inputs alone, so that a row of y has the same bits in every
// batch: the inputs are cut into chunks of 32, the chunks into 8 contiguous ranges; a range is summed
// from front to back by fused multiply-adds, and the 8 results are added in order. Each warp of a block does one
// range of 32 outputs, an output a lane. `rows` only says how many rows of x share a pass over W.
//
// Weights and x come through a ring of stages in shared memory, filled by cp.async. Each warp has its
// own and waits for nobody else until its range is done.
#include "fp8.h"

namespace {

constexpr int ranges = 8, outputsOfBlock = 32, chunk = 32;

/// Stages of a ring. Two more bytes an element leave room for fewer.
template <class T>
constexpr int depth = sizeof(T) == 2 ? 3 : 2;

/// Bytes of a row of a stage, of weights or of x. The 16 bytes more than a chunk keep lanes that read a column of rows out of
/// each other's banks.
template <class T>
constexpr int pitch = chunk * int(sizeof(T)) + 16;

/// `decoder_kernels.ts` computes the same for the launch.
template <class T, class W, int rows>
constexpr int stageBytes = outputsOfBlock * pitch<W> + rows * pitch<T>;

/// Starts to load a chunk of `count` rows of a matrix. Rows past its end repeat the last one: their results are
/// not stored.
template <class W, int count>
__device__ __forceinline__ void loadRows(unsigned char* to, const W* matrix, int chunkIndex, int firstRow, int rows,
                                         int inputs) {
  constexpr int vectors = chunk / vectorElements<W>;
  for (int piece = int(threadIdx.x) % 32; piece < count * vectors; piece += 32) {
    const int row = piece / vectors, vector = piece % vectors;
    const int input = chunkIndex * chunk + vector * vectorElements<W>;
    const bool isThere = input < inputs;
    const W* from = matrix + size_t(min(firstRow + row, rows - 1)) * inputs;
    __pipeline_memcpy_async(to + row * pitch<W> + vector * 16, from + (isThere ? input : 0), 16, isThere ? 0 : 16);
  }
}

/// Weights of a row of a stage, as many as a vector of x has.
template <class T, class W>
__device__ __forceinline__ void weightsOf(const unsigned char* row, int vector, float (&to)[vectorElements<T>]) {
  if constexpr (sizeof(W) == 1) {
    const uint2 codes = reinterpret_cast<const uint2*>(row)[vector];
    unpackWord(codes.x, to, W{});
    unpackWord(codes.y, to + 4, W{});
  } else {
    unpack<T>(reinterpret_cast<const uint4*>(row)[vector], to);
  }
}

template <class T, class W, int rows>
__device__ __forceinline__ void multiplyStage(const unsigned char* stage, float (&sums)[rows]) {
  const int lane = int(threadIdx.x) % 32;
  const unsigned char* xs = stage + outputsOfBlock * pitch<W>;
UNROLL
  for (int vector = 0; vector < chunk / vectorElements<T>; vector++) {
    float w[vectorElements<T>];
    weightsOf<T, W>(stage + lane * pitch<W>, vector, w);
UNROLL
    for (int row = 0; row < rows; row++) {
      float x[vectorElements<T>];
      unpack<T>(reinterpret_cast<const uint4*>(xs + row * pitch<T>)[vector], x);
UNROLL
      for (int i = 0; i < vectorElements<T>; i++) sums[row] = fmaf(w[i], x[i], sums[row]);
    }
  }
}

/// Grid [ceil(allRows / rows), ceil(outputs / 32)], 256 threads; 8 * depth * stageBytes of shared memory.
/// `bias` is float32 [outputs] or null. With `adds`, y += instead of y =. `inputs` is a multiple of
/// vectorElements, and w and x are aligned to 16 bytes. Weights of e4m3 have `scales`, float32 [outputs].
template <class T, int rows, class W>
__device__ __forceinline__ void linear(const W* w, const float* scales, const T* x, const float* bias, float* y,
                                       int allRows, int outputs, int inputs, int adds) {
  DYNAMIC_SHARED(unsigned char, shared);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int firstRow = int(blockIdx.x) * rows, firstOutput = int(blockIdx.y) * outputsOfBlock;
  const int chunks = (inputs + chunk - 1) / chunk;
  const int begin = chunks * warp / ranges, end = chunks * (warp + 1) / ranges;
  unsigned char* ring = shared + warp * depth<T> * stageBytes<T, W, rows>;
  auto load = [&](int index) {
    if (index < end) {
      unsigned char* stage = ring + index % depth<T> * stageBytes<T, W, rows>;
      loadRows<W, outputsOfBlock>(stage, w, index, firstOutput, outputs, inputs);
      loadRows<T, rows>(stage + outputsOfBlock * pitch<W>, x, index, firstRow, allRows, inputs);
    }
    __pipeline_commit();
  };
  float sums[rows] = {};
  for (int ahead = 0; ahead < depth<T> - 1; ahead++) load(begin + ahead);
  for (int index = begin; index < end; index++) {
    __pipeline_wait_prior(depth<T> - 2);
    __syncwarp();  // all lanes' copies are there, and nobody reads the stage that is filled next
    load(index + depth<T> - 1);
    multiplyStage<T, W, rows>(ring + index % depth<T> * stageBytes<T, W, rows>, sums);
  }
  // All copies have landed: those behind the last chunk were empty.
  __syncthreads();  // the rings are no longer needed: their memory takes the sums of the ranges
  float* sumsOfRanges = reinterpret_cast<float*>(shared);
  for (int row = 0; row < rows; row++) {
    sumsOfRanges[(warp * rows + row) * outputsOfBlock + lane] = sums[row];
  }
  __syncthreads();
  for (int row = warp; row < min(rows, allRows - firstRow); row += ranges) {
    const int output = firstOutput + lane;
    if (output >= outputs) continue;
    float sum = sumsOfRanges[row * outputsOfBlock + lane];
    for (int range = 1; range < ranges; range++) {
      sum += sumsOfRanges[(range * rows + row) * outputsOfBlock + lane];
    }
    sum = finishSum<W>(sum, scales, bias, output);
    float* to = y + size_t(firstRow + row) * outputs + output;
    *to = adds ? *to + sum : sum;
  }
}

}  // namespace

#ifndef TEMPLATES_ONLY
extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_1(const bf16* __restrict__ w, const bf16* __restrict__ x, const float* __restrict__ bias,
                  float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<bf16, 1>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_4(const bf16* __restrict__ w, const bf16* __restrict__ x, const float* __restrict__ bias,
                  float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<bf16, 4>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_8(const bf16* __restrict__ w, const bf16* __restrict__ x, const float* __restrict__ bias,
                  float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<bf16, 8>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f16_1(const f16* __restrict__ w, const f16* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<f16, 1>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f16_4(const f16* __restrict__ w, const f16* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<f16, 4>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f16_8(const f16* __restrict__ w, const f16* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<f16, 8>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f32_1(const f32* __restrict__ w, const f32* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<f32, 1>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f32_4(const f32* __restrict__ w, const f32* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<f32, 4>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f32_8(const f32* __restrict__ w, const f32* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int allRows, int outputs, int inputs, int adds) {
  linear<f32, 8>(w, nullptr, x, bias, y, allRows, outputs, inputs, adds);
}
#endif
