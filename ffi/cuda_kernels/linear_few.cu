// Linear layers of 1 to 8 rows, that is of decode steps, with what comes before and behind them: weights
// are read once, at the speed of memory. `tensor_cores.h` has the order of the sums.
//
// A block takes tiles of 8 rows of weights in turn, each warp one range of their inputs. The rows of x lie
// on the side of 16 of the mma, of which half is empty: one row takes the same instructions as eight.
// Each warp has a ring of its own for weights, which runs on across tiles, and waits for others only when the
// sums of the 8 ranges are added. The ring is filled before the kernel before has ended.
#include "rows.h"
#include "tensor_cores.h"

namespace {

constexpr int warps = ranges, threads = warps * 32, tileOutputs = 8, mostRows = 8;
/// Of weights of type W, which is that of x, or e4m3.
template <class W>
constexpr int rowBytes = chunkInputs * int(sizeof(W));
template <class W>
constexpr int stageBytes = tileOutputs * rowBytes<W>;
constexpr int tileSums = mostRows * tileOutputs;

enum class From { Norm, Memory };
enum class To { Store, Add, Silu };

/// The output of row `row` of a tile of weights. With Silu a tile has 4 gates, then their 4 ups.
template <To to>
__device__ __forceinline__ int outputOf(int tile, int row, int outputs) {
  return to == To::Silu ? tile * 4 + row % 4 + (row < 4 ? 0 : outputs / 2) : tile * 8 + row;
}

/// The weights of a warp's range, tile after tile.
template <class W, To to>
struct WeightRing {
  const W* w;
  unsigned char* stages;
  int outputs, inputs, tiles, begin, end, depth;
  int tile, chunk, stage = 0;  ///< What is loaded next, and where to.

  /// Rows past the end repeat the last one: their results are not stored.
  DEVICE_MEMBER const W* rowOfTile(int row) const {
    return w + size_t(min(outputOf<to>(tile, row, outputs), outputs - 1)) * inputs;
  }

  /// Starts to load the next stage, if there is one.
  DEVICE_MEMBER void load() {
    if (tile < tiles && begin < end) {
      constexpr int pieces = rowBytes<W> / 16;
      const int lane = int(threadIdx.x) % 32, piece = lane % pieces;
      const int input = chunk * chunkInputs + piece * vectorElements<W>;
      const bool isThere = input < inputs;
      unsigned char* weights = stages + stage * stageBytes<W>;
UNROLL
      for (int i = 0; i < tileOutputs * pieces / 32; i++) {
        const int row = lane / pieces + 32 / pieces * i;
        unsigned char* at = weights + row * rowBytes<W> + swizzledWeight<W, chunkInputs>(row, piece) * 16;
        copy_async_16(at, rowOfTile(row) + (isThere ? input : 0), isThere);
      }
      if (++stage == depth) stage = 0;
      if (++chunk == end) {
        chunk = begin;
        tile += int(gridDim.x);
      }
    }
    __pipeline_commit();
  }
};

/// Waits until the oldest stage of a ring of `depth` stages has landed: 2, 4 or 6.
__device__ __forceinline__ void waitForStage(int depth) {
  if (depth == 2) {
    __pipeline_wait_prior(0);
  } else if (depth == 4) {
    __pipeline_wait_prior(2);
  } else {
    __pipeline_wait_prior(4);
  }
}

/// Elements from a row of x in shared memory to the next: whole chunks, and 64 bytes that keep rows out of
/// each other's banks.
__device__ __forceinline__ int pitchOfX(int inputs) { return chunksOf(inputs) * chunkInputs + 32; }

/// Rows of x after their norm, zeros behind them.
template <class T>
__device__ __forceinline__ void normRows(const float* x, const float* norm, const int* indices, int rows, int inputs,
                                         float epsilon, T* to, float* sumsOfWarps) {
  const int thread = int(threadIdx.x), end = chunksOf(inputs) * chunkInputs, pitch = pitchOfX(inputs);
  for (int row = 0; row < rows; row++) {
    const float* from = x + size_t(indices == nullptr ? row : indices[row]) * inputs;
    const float squares = sumOfWarp(squaresOfThread(from, inputs));
    if (thread % 32 == 0) sumsOfWarps[row * warps + thread / 32] = squares;
  }
  __syncthreads();
  for (int row = 0; row < rows; row++) {
    const float* from = x + size_t(indices == nullptr ? row : indices[row]) * inputs;
    const float scale = scaleOfRow(sumsOfWarps + row * warps, inputs, epsilon);
    for (int i = 4 * thread; i < end; i += 4 * threads) {
      uint2 packed = make_uint2(0, 0);
      if (i < inputs) {
        const float4 v = __ldcg(reinterpret_cast<const float4*>(from + i));
        const float4 g = *reinterpret_cast<const float4*>(norm + i);
        packed.x = packPair(normed(v.x, scale, g.x), normed(v.y, scale, g.y), T{});
        packed.y = packPair(normed(v.z, scale, g.z), normed(v.w, scale, g.w), T{});
      }
      *reinterpret_cast<uint2*>(to + row * pitch + i) = packed;
    }
  }
}

/// Rows of x as they are, zeros behind them.
template <class T>
__device__ __forceinline__ void copyRows(const T* x, int rows, int inputs, T* to) {
  const int end = chunksOf(inputs) * chunkInputs, pitch = pitchOfX(inputs);
  for (int row = 0; row < rows; row++) {
    for (int i = 8 * int(threadIdx.x); i < end; i += 8 * threads) {
      uint4 piece = make_uint4(0, 0, 0, 0);
      if (i < inputs) piece = __ldcg(reinterpret_cast<const uint4*>(x + size_t(row) * inputs + i));
      *reinterpret_cast<uint4*>(to + row * pitch + i) = piece;
    }
  }
}

/// Grid: as many blocks as run at a time. 256 threads. Shared memory: the rings, two tiles of sums, x.
/// W is [outputs, inputs], row-major; `inputs` is a multiple of 8, for Silu `outputs` of 8. `norm` is
/// float32 [inputs], `bias` float32 [outputs] or null. Weights of e4m3 have `scales`, float32 [outputs], and
/// `inputs` is a multiple of 16.
///   Norm    x is float32; row i of y is of row indices[i] of x, or of row i if `indices` is null.
///   Memory  x is of type T.
///   Store   y (float32) = the sums and the bias.      Add  y (float32) += them.
///   Silu    W is gate | up; y (T) [rows, outputs / 2] = silu(gate) * up.
template <class T, From from, To to, class W>
__device__ __forceinline__ void linearFew(const void* x, const W* w, const float* scales, const float* norm,
                                          const float* bias, void* y, const int* indices, int rows, int outputs,
                                          int inputs, float epsilon, int depth) {
  DYNAMIC_SHARED(unsigned char, shared);
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int tiles = (outputs + tileOutputs - 1) / tileOutputs, chunks = chunksOf(inputs);
  const int begin = firstChunk(chunks, warp), end = firstChunk(chunks, warp + 1);
  unsigned char* stages = shared + warp * depth * stageBytes<W>;
  float* sumsOfRanges = reinterpret_cast<float*>(shared + warps * depth * stageBytes<W>);
  T* xs = reinterpret_cast<T*>(sumsOfRanges + 2 * ranges * tileSums);
  WeightRing<W, to> ring{w, stages, outputs, inputs, tiles, begin, end, depth, int(blockIdx.x), begin};
  for (int ahead = 0; ahead < depth - 1; ahead++) ring.load();

  grid_wait();
  grid_launch();
  if (from == From::Norm) {
    normRows(static_cast<const float*>(x), norm, indices, rows, inputs, epsilon, xs, sumsOfRanges);
  } else {
    copyRows(static_cast<const T*>(x), rows, inputs, xs);
  }
  __syncthreads();

  // Rows of x past the end repeat the last one.
  const T* xOfLane = xs + min(lane / 4, rows - 1) * pitchOfX(inputs) + lane % 4 * 8;
  const int row = thread / tileOutputs, column = thread % tileOutputs;  // of the sum that a thread below 64 stores
  int stage = 0, half = 0;
  for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
    const int output = outputOf<to>(tile, column, outputs);
    const bool isStored = thread < tileSums && row < rows && output < outputs;
    float* place = static_cast<float*>(y) + size_t(row) * outputs + output;
    const float before = to == To::Add && isStored ? __ldcg(place) : 0.0f;
    float sums[4] = {};
    for (int chunk = begin; chunk < end; chunk++) {
      waitForStage(depth);
      __syncwarp();  // all lanes' copies are there, and no lane reads the stage that is filled next
      ring.load();
      const unsigned char* weights = stages + stage * stageBytes<W> + lane / 4 * rowBytes<W>;
UNROLL
      for (int step = 0; step < 4; step++) {
        const uint4 wPiece = eightWeights<T, W, chunkInputs>(weights, lane / 4, step * 4 + lane % 4);
        const uint4 xPiece = *reinterpret_cast<const uint4*>(xOfLane + chunk * chunkInputs + step * 32);
        multiplyPieces<T>(sums, xPiece, make_uint4(0, 0, 0, 0), wPiece);
      }
      if (++stage == depth) stage = 0;
    }
    // Two tiles of sums: one is filled while the other is read.
    float* sumsOfTile = sumsOfRanges + half * ranges * tileSums;
    *reinterpret_cast<float2*>(sumsOfTile + warp * tileSums + 2 * lane) = make_float2(sums[0], sums[1]);
    __syncthreads();
    half ^= 1;
    if (thread >= tileSums) continue;
    float sum = sumsOfTile[thread];
    for (int range = 1; range < ranges; range++) sum += sumsOfTile[range * tileSums + thread];
    if (output < outputs) sum = finishSum<W>(sum, scales, bias, output);
    if (to == To::Silu) {
      const float up = __shfl_xor_sync(0xffffffffu, sum, 4);
      T* activated = static_cast<T*>(y) + size_t(row) * (outputs / 2) + tile * 4 + column;
      if (row < rows && column < 4) narrow(siluTimes(sum, up), *activated);
    } else if (isStored) {
      *place = to == To::Add ? before + sum : sum;
    }
  }
}

}  // namespace

#ifndef TEMPLATES_ONLY
extern "C" __global__ void __launch_bounds__(256, 2)
    norm_linear_bf16(const float* x, const bf16* __restrict__ w, const float* __restrict__ norm,
                     const float* __restrict__ bias, float* y, const int* indices, int rows, int outputs, int inputs,
                     float epsilon, int depth) {
  linearFew<bf16, From::Norm, To::Store>(x, w, nullptr, norm, bias, y, indices, rows, outputs, inputs, epsilon, depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    norm_linear_f16(const float* x, const f16* __restrict__ w, const float* __restrict__ norm,
                    const float* __restrict__ bias, float* y, const int* indices, int rows, int outputs, int inputs,
                    float epsilon, int depth) {
  linearFew<f16, From::Norm, To::Store>(x, w, nullptr, norm, bias, y, indices, rows, outputs, inputs, epsilon, depth);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    norm_gate_up_bf16(const float* x, const bf16* __restrict__ w, const float* __restrict__ norm, bf16* y, int rows,
                      int outputs, int inputs, float epsilon, int depth) {
  linearFew<bf16, From::Norm, To::Silu>(x, w, nullptr, norm, nullptr, y, nullptr, rows, outputs, inputs, epsilon, depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    norm_gate_up_f16(const float* x, const f16* __restrict__ w, const float* __restrict__ norm, f16* y, int rows,
                     int outputs, int inputs, float epsilon, int depth) {
  linearFew<f16, From::Norm, To::Silu>(x, w, nullptr, norm, nullptr, y, nullptr, rows, outputs, inputs, epsilon, depth);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    linear_add_bf16(const bf16* x, const bf16* __restrict__ w, const float* __restrict__ bias, float* y, int rows,
                    int outputs, int inputs, int depth) {
  linearFew<bf16, From::Memory, To::Add>(x, w, nullptr, nullptr, bias, y, nullptr, rows, outputs, inputs, 0, depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    linear_add_f16(const f16* x, const f16* __restrict__ w, const float* __restrict__ bias, float* y, int rows,
                   int outputs, int inputs, int depth) {
  linearFew<f16, From::Memory, To::Add>(x, w, nullptr, nullptr, bias, y, nullptr, rows, outputs, inputs, 0, depth);
}
#endif
