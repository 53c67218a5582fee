// What a decoder does with each row of activations by itself: embedding, RMS norm, SiLU, the largest logit, and
// rows that devices compute parts of. A block has one row, so that no row's result depends on another row.
#include "ptx.h"
#include "rows.h"

namespace {

/// y = the row of `table` that belongs to the token. Grid [rows], 256 threads.
template <class T>
__device__ __forceinline__ void embed(const T* table, const int* tokens, float* y, int width) {
  grid_wait();
  grid_launch();
  const T* from = table + size_t(tokens[blockIdx.x]) * width;
  float* to = y + size_t(blockIdx.x) * width;
  for (int i = int(threadIdx.x); i < width; i += threadsOfRow) to[i] = widen(from[i]);
}

/// Shared memory for the sums of a block's warps; g++ puts shared memory of templates elsewhere.
__device__ __forceinline__ float* sharedSums() {
  __shared__ float sums[warpsOfRow];
  return sums;
}

/// y = x / sqrt(mean(x^2) + epsilon) * weight. Row i of y is of row `rows[i]` of x, or of row i if `rows`
/// is null. `width` is a multiple of 4. Grid [rows], 256 threads.
template <class T>
__device__ __forceinline__ void rmsNorm(const float* x, const float* weight, const int* rows, T* y, int width,
                                        float epsilon) {
  float* sumsOfWarps = sharedSums();
  grid_wait();
  grid_launch();
  const int row = rows == nullptr ? int(blockIdx.x) : rows[blockIdx.x];
  const float* from = x + size_t(row) * width;
  T* to = y + size_t(blockIdx.x) * width;
  const float squares = sumOfWarp(squaresOfThread(from, width));
  if (threadIdx.x % 32 == 0) sumsOfWarps[threadIdx.x / 32] = squares;
  __syncthreads();
  const float scale = scaleOfRow(sumsOfWarps, width, epsilon);
  for (int i = int(threadIdx.x); i < width; i += threadsOfRow) {
    narrow(normed(__ldcg(from + i), scale, weight[i]), to[i]);
  }
}

/// y = silu(gate) * up, of rows gate | up. Grid [rows], 256 threads.
template <class T>
__device__ __forceinline__ void siluMultiply(const float* gateUp, T* y, int width) {
  grid_wait();
  grid_launch();
  const float* gate = gateUp + size_t(blockIdx.x) * 2 * width;
  T* to = y + size_t(blockIdx.x) * width;
  for (int i = int(threadIdx.x); i < width; i += threadsOfRow) {
    narrow(siluTimes(__ldcg(gate + i), __ldcg(gate + width + i)), to[i]);
  }
}

/// Rows of `to` += rows of `from`, or += the same row if `stride`, the elements from a row of it to the next,
/// is 0. Grid [rows], 256 threads.
__device__ __forceinline__ void addRows(const float* from, int stride, float* to, int width) {
  grid_wait();
  grid_launch();
  const float* row = from + size_t(blockIdx.x) * stride;
  float* sums = to + size_t(blockIdx.x) * width;
  for (int i = int(threadIdx.x); i < width; i += threadsOfRow) sums[i] = __ldcg(sums + i) + __ldcg(row + i);
}

/// Rows of parts: row r of part p is at `part * p + row * r` words of 32 bits.
struct Parts {
  int part, row;
};

/// The first `width` words of each row of each part go to another place. Grid [rows, parts], 256 threads.
__device__ __forceinline__ void moveParts(const unsigned* from, Parts fromParts, unsigned* to, Parts toParts, int width) {
  grid_wait();
  grid_launch();
  const int row = int(blockIdx.x), part = int(blockIdx.y);
  const unsigned* source = from + size_t(part) * fromParts.part + size_t(row) * fromParts.row;
  unsigned* destination = to + size_t(part) * toParts.part + size_t(row) * toParts.row;
  for (int i = int(threadIdx.x); i < width; i += threadsOfRow) destination[i] = __ldcg(source + i);
}

/// A place of a maximum: the larger value wins, then the lower index.
struct Largest {
  float value;
  int index;
};

__device__ __forceinline__ Largest larger(Largest a, Largest b) {
  const bool isSecond = b.value > a.value || (b.value == a.value && b.index < a.index);
  return isSecond ? b : a;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    embed_bf16(const bf16* __restrict__ table, const int* tokens, float* y, int width) {
  embed(table, tokens, y, width);
}
extern "C" __global__ void __launch_bounds__(256)
    embed_f16(const f16* __restrict__ table, const int* tokens, float* y, int width) {
  embed(table, tokens, y, width);
}
extern "C" __global__ void __launch_bounds__(256)
    embed_f32(const f32* __restrict__ table, const int* tokens, float* y, int width) {
  embed(table, tokens, y, width);
}

extern "C" __global__ void __launch_bounds__(256)
    rms_norm_bf16(const float* x, const float* __restrict__ weight, const int* rows,
                  bf16* y, int width, float epsilon) {
  rmsNorm(x, weight, rows, y, width, epsilon);
}
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_f16(const float* x, const float* __restrict__ weight, const int* rows,
                 f16* y, int width, float epsilon) {
  rmsNorm(x, weight, rows, y, width, epsilon);
}
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_f32(const float* x, const float* __restrict__ weight, const int* rows,
                 f32* y, int width, float epsilon) {
  rmsNorm(x, weight, rows, y, width, epsilon);
}

extern "C" __global__ void __launch_bounds__(256)
    silu_multiply_bf16(const float* gateUp, bf16* y, int width) {
  siluMultiply(gateUp, y, width);
}
extern "C" __global__ void __launch_bounds__(256)
    silu_multiply_f16(const float* gateUp, f16* y, int width) {
  siluMultiply(gateUp, y, width);
}
extern "C" __global__ void __launch_bounds__(256)
    silu_multiply_f32(const float* gateUp, f32* y, int width) {
  siluMultiply(gateUp, y, width);
}

extern "C" __global__ void __launch_bounds__(256) add_rows(const float* from, int stride, float* to, int width) {
  addRows(from, stride, to, width);
}

extern "C" __global__ void __launch_bounds__(256)
    move_parts(const unsigned* from, int fromPart, int fromRow, unsigned* to, int toPart, int toRow, int width) {
  moveParts(from, {fromPart, fromRow}, to, {toPart, toRow}, width);
}

/// The index of each row's largest logit, the lowest on ties; -1 if a logit is NaN, or if the largest is
/// not finite. Grid [rows], 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    largest_logit(const float* __restrict__ logits, int* __restrict__ indices, int width) {
  __shared__ Largest largestOfWarps[warpsOfRow];
  __shared__ unsigned unorderedOfWarps[warpsOfRow];
  const float* row = logits + size_t(blockIdx.x) * width;
  Largest mine = {-INFINITY, 0x7fffffff};
  bool isUnordered = false;
  for (int i = int(threadIdx.x); i < width; i += threadsOfRow) {
    mine = larger(mine, {row[i], i});
    isUnordered |= row[i] != row[i];
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float value = __shfl_xor_sync(0xffffffffu, mine.value, lanes);
    mine = larger(mine, {value, __shfl_xor_sync(0xffffffffu, mine.index, lanes)});
  }
  const unsigned unordered = __ballot_sync(0xffffffffu, isUnordered);
  if (threadIdx.x % 32 == 0) {
    largestOfWarps[threadIdx.x / 32] = mine;
    unorderedOfWarps[threadIdx.x / 32] = unordered;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned anyUnordered = unordered;
  for (int warp = 1; warp < warpsOfRow; warp++) {
    mine = larger(mine, largestOfWarps[warp]);
    anyUnordered |= unorderedOfWarps[warp];
  }
  const bool isFinite = mine.value - mine.value == 0;
  indices[blockIdx.x] = anyUnordered == 0 && isFinite ? mine.index : -1;
}
