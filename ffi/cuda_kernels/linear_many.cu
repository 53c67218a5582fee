// Linear layers of any number of rows, on tensor cores: y = or += x W^T + bias. The sums are those of
// linear_few.cu (`tensor_cores.h` has their order), so that a row of a prompt and the same row in a decode
// step have the same bits.
//
// A block computes a tile of rows and outputs, and all its ranges in turn: what an accumulator holds at
// the end of a range is added to the total. x and weights come through stages in shared memory.
#include "tensor_cores.h"

namespace {

constexpr int threads = 256, stageInputs = 64;
static_assert(chunkInputs % stageInputs == 0);
/// Of a row of a stage, for elements of type W.
template <class W>
constexpr int rowBytes = stageInputs * int(sizeof(W));

/// A block's tile, for x of type T and weights of type W. The 8 warps lie 2 along the rows and 4 along the outputs.
template <class T, class W, int size>
struct Tile {
  static constexpr int rows = size, outputs = size, stages = size == 128 ? 3 : 4;
  static constexpr int rowsOfWarp = rows / 2, outputsOfWarp = outputs / 4;
  static constexpr int stageBytes = rows * rowBytes<T> + outputs * rowBytes<W>;
};

/// Starts to load 64 inputs of `size` rows of a matrix. Rows past its end repeat the last one: their results
/// are not stored.
template <class W, int size>
__device__ __forceinline__ void loadRows(unsigned char* to, const W* matrix, int step, int firstRow, int rows,
                                         int inputs) {
  constexpr int pieces = rowBytes<W> / 16;
  const int piece = int(threadIdx.x) % pieces, input = step * stageInputs + piece * vectorElements<W>;
  const bool isThere = input < inputs;
UNROLL
  for (int row = int(threadIdx.x) / pieces; row < size; row += threads / pieces) {
    const W* from = matrix + size_t(min(firstRow + row, rows - 1)) * inputs;
    unsigned char* at = to + row * rowBytes<W> + swizzledWeight<W, stageInputs>(row, piece) * 16;
    copy_async_16(at, from + (isThere ? input : 0), isThere);
  }
}

/// to = or += two sums, of which the row of y has room for `left`.
__device__ __forceinline__ void storePair(float* to, float2 sums, int left, bool isAligned, int adds) {
  if (left > 1 && isAligned) {
    float2& pair = *reinterpret_cast<float2*>(to);
    pair = adds ? make_float2(pair.x + sums.x, pair.y + sums.y) : sums;
    return;
  }
  to[0] = adds ? to[0] + sums.x : sums.x;
  if (left > 1) to[1] = adds ? to[1] + sums.y : sums.y;
}

/// Grid [ceil(rows / size), ceil(outputs / size)], 256 threads; stages * stageBytes of shared memory. `bias` is
/// float32 [outputs] or null. With `adds`, y += instead of y =. `inputs` is a multiple of 8. Weights of e4m3 have
/// `scales`, float32 [outputs], and `inputs` is a multiple of 16.
template <class T, int size, class W>
__device__ __forceinline__ void linearMany(const T* x, const W* w, const float* scales, const float* bias, float* y,
                                           int rows, int outputs, int inputs, int adds) {
  using Shape = Tile<T, W, size>;
  constexpr int rowTiles = Shape::rowsOfWarp / 16, outputTiles = Shape::outputsOfWarp / 8;
  DYNAMIC_SHARED(unsigned char, shared);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int firstRow = int(blockIdx.x) * size, firstOutput = int(blockIdx.y) * size;
  const int warpRow = warp % 2 * Shape::rowsOfWarp, warpOutput = warp / 2 * Shape::outputsOfWarp;
  const int chunks = chunksOf(inputs), steps = chunks * (chunkInputs / stageInputs);
  auto stageOf = [&](int step) { return shared + step % Shape::stages * Shape::stageBytes; };
  auto loadX = [&](int step) {
    if (step < steps) loadRows<T, size>(stageOf(step), x, step, firstRow, rows, inputs);
  };
  auto loadWeights = [&](int step) {
    if (step < steps) loadRows<W, size>(stageOf(step) + size * rowBytes<T>, w, step, firstOutput, outputs, inputs);
  };
  for (int ahead = 0; ahead < Shape::stages - 1; ahead++) loadWeights(ahead);
  grid_wait();
  grid_launch();
  for (int ahead = 0; ahead < Shape::stages - 1; ahead++) {
    loadX(ahead);
    __pipeline_commit();
  }

  float totals[rowTiles][outputTiles][4] = {};
  int step = 0;
  for (int range = 0; range < ranges; range++) {
    float sums[rowTiles][outputTiles][4] = {};
    const int end = firstChunk(chunks, range + 1) * (chunkInputs / stageInputs);
    for (; step < end; step++) {
      __pipeline_wait_prior(Shape::stages - 2);
      __syncthreads();  // all threads' copies are there, and no warp reads the stage that is filled next
      loadX(step + Shape::stages - 1);
      loadWeights(step + Shape::stages - 1);
      __pipeline_commit();
      // Rows that a lane reads are lane / 4 and multiples of 8 further, which are swizzled alike.
      const unsigned char* xOfLane = stageOf(step) + lane / 4 * rowBytes<T>;
      const unsigned char* wOfLane = stageOf(step) + size * rowBytes<T> + lane / 4 * rowBytes<W>;
UNROLL
      for (int half = 0; half < 2; half++) {
        const int place = swizzled(lane / 4, half * 4 + lane % 4) * 16;
        auto pieceOf = [&](int row) { return *reinterpret_cast<const uint4*>(xOfLane + row * rowBytes<T> + place); };
        uint4 weights[outputTiles];
UNROLL
        for (int j = 0; j < outputTiles; j++) {
          const unsigned char* row = wOfLane + (warpOutput + j * 8) * rowBytes<W>;
          weights[j] = eightWeights<T, W, stageInputs>(row, lane / 4, half * 4 + lane % 4);
        }
UNROLL
        for (int i = 0; i < rowTiles; i++) {
          const uint4 upper = pieceOf(warpRow + i * 16), lower = pieceOf(warpRow + i * 16 + 8);
UNROLL
          for (int j = 0; j < outputTiles; j++) multiplyPieces<T>(sums[i][j], upper, lower, weights[j]);
        }
      }
    }
UNROLL
    for (int i = 0; i < rowTiles; i++) {
UNROLL
      for (int j = 0; j < outputTiles; j++) {
UNROLL
        for (int k = 0; k < 4; k++) totals[i][j][k] += sums[i][j][k];
      }
    }
  }
UNROLL
  for (int j = 0; j < outputTiles; j++) {
    const int output = firstOutput + warpOutput + j * 8 + lane % 4 * 2, left = outputs - output;
    if (left <= 0) continue;
UNROLL
    for (int i = 0; i < rowTiles; i++) {
UNROLL
      for (int half = 0; half < 2; half++) {
        const int row = firstRow + warpRow + i * 16 + lane / 4 + half * 8;
        if (row >= rows) continue;
        float2 sums = make_float2(totals[i][j][2 * half], totals[i][j][2 * half + 1]);
        sums.x = finishSum<W>(sums.x, scales, bias, output);
        if (left > 1) sums.y = finishSum<W>(sums.y, scales, bias, output + 1);
        storePair(y + size_t(row) * outputs + output, sums, left, outputs % 2 == 0, adds);
      }
    }
  }
}

}  // namespace

#ifndef TEMPLATES_ONLY
extern "C" __global__ void __launch_bounds__(256, 2)
    linear_many_bf16_64(const bf16* x, const bf16* __restrict__ w, const float* __restrict__ bias, float* y, int rows,
                        int outputs, int inputs, int adds) {
  linearMany<bf16, 64>(x, w, nullptr, bias, y, rows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    linear_many_f16_64(const f16* x, const f16* __restrict__ w, const float* __restrict__ bias, float* y, int rows,
                       int outputs, int inputs, int adds) {
  linearMany<f16, 64>(x, w, nullptr, bias, y, rows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256, 1)
    linear_many_bf16_128(const bf16* x, const bf16* __restrict__ w, const float* __restrict__ bias, float* y, int rows,
                         int outputs, int inputs, int adds) {
  linearMany<bf16, 128>(x, w, nullptr, bias, y, rows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256, 1)
    linear_many_f16_128(const f16* x, const f16* __restrict__ w, const float* __restrict__ bias, float* y, int rows,
                        int outputs, int inputs, int adds) {
  linearMany<f16, 128>(x, w, nullptr, bias, y, rows, outputs, inputs, adds);
}
#endif
