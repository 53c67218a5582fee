// Products on tensor cores in the types of 16 bits, and the one order of sums of linear layers.
#pragma once
#include "fp8.h"
#include "ptx.h"

/// d[16 x 8] += a[16 x 16] b[16 x 8]; see ptx.h.
__device__ __forceinline__ void multiplyAdd(float* d, const unsigned* a, const unsigned* b, bf16) { mma_bf16(d, a, b); }
__device__ __forceinline__ void multiplyAdd(float* d, const unsigned* a, const unsigned* b, f16) { mma_f16(d, a, b); }

/// Two numbers, rounded; `low` in the low half.
__device__ __forceinline__ unsigned packPair(float low, float high, bf16) { return pack_bf16(low, high); }
__device__ __forceinline__ unsigned packPair(float low, float high, f16) { return pack_f16(low, high); }

/// Two numbers of e4m3 in the upper bytes of two halves, as a pair of the type. NaN becomes 480.
__device__ __forceinline__ unsigned widenPair(unsigned halves, bf16) {
  return multiply_bf16x2((halves & 0x80008000u) | (halves & 0x7f007f00u) >> 4, 0x7b807b80u);  // 2^120
}
__device__ __forceinline__ unsigned widenPair(unsigned halves, f16) {
  return multiply_f16x2((halves & 0x80008000u) | (halves & 0x7f007f00u) >> 1, 0x5c005c00u);  // 2^8
}
/// Eight numbers of e4m3 as ones of the type.
template <class T>
__device__ __forceinline__ uint4 widenEight(uint2 codes) {
  return make_uint4(widenPair(__byte_perm(codes.x, 0, 0x1404), T{}), widenPair(__byte_perm(codes.x, 0, 0x3424), T{}),
                    widenPair(__byte_perm(codes.y, 0, 0x1404), T{}), widenPair(__byte_perm(codes.y, 0, 0x3424), T{}));
}

// How every kernel sums a linear layer, for any number of rows. The inputs are cut into chunks of 128, and
// the chunks are divided into 8 contiguous ranges (a short layer leaves some empty). A range is summed from
// front to back by mma into one accumulator, and the 8 results are added in order. An mma sees 16 inputs; a lane
// takes 16 bytes of a row in one load, which are its inputs of two mma: of 32 inputs, the lanes q = 0..3 of a
// row have the inputs 8q..8q+7, the first four in the first mma. The order of inputs within an mma is the
// same for weights and x, so it changes nothing but the order of the sum.

constexpr int ranges = 8, chunkInputs = 128;

__device__ __forceinline__ int chunksOf(int inputs) { return (inputs + chunkInputs - 1) / chunkInputs; }
/// The first chunk of a range; ranges + 1 gives the end of the last one.
__device__ __forceinline__ int firstChunk(int chunks, int range) { return chunks * range / ranges; }

/// d += products of 32 inputs, for 16 rows of x and 8 rows of weights. Each lane holds 16 bytes of three
/// rows: row lane / 4 of x, row lane / 4 + 8 of x (`x8`), and row lane / 4 of the weights.
template <class T>
__device__ __forceinline__ void multiplyPieces(float* d, const uint4& x, const uint4& x8, const uint4& w) {
  const unsigned first[4] = {x.x, x8.x, x.y, x8.y}, second[4] = {x.z, x8.z, x.w, x8.w};
  const unsigned firstWeights[2] = {w.x, w.y}, secondWeights[2] = {w.z, w.w};
  multiplyAdd(d, first, firstWeights, T{});
  multiplyAdd(d, second, secondWeights, T{});
}

// Weights of 8 bits are widened, exactly, when they leave shared memory.

/// Where piece `piece` (16 bytes) of row `row` lies in shared memory: lanes of two neighbouring rows then
/// read from different banks.
__device__ __forceinline__ int swizzled(int row, int piece) { return piece ^ (row & 1) * 4; }

/// The same for weights, in rows of `inputs`. Of weights of 8 bits half a warp reads 8 bytes a lane, of four rows.
template <class W, int inputs>
__device__ __forceinline__ int swizzledWeight(int row, int piece) {
  if constexpr (sizeof(W) == 1) return piece ^ (inputs == 128 ? row & 3 : row >> 1 & 1) * 2;
  return swizzled(row, piece);
}
/// Eight weights from input 8 * `group` on, of a row in shared memory.
template <class T, class W, int inputs>
__device__ __forceinline__ uint4 eightWeights(const unsigned char* weights, int row, int group) {
  if constexpr (sizeof(W) == 1) {
    const unsigned char* piece = weights + swizzledWeight<W, inputs>(row, group / 2) * 16;
    return widenEight<T>(*reinterpret_cast<const uint2*>(piece + group % 2 * 8));
  }
  return *reinterpret_cast<const uint4*>(weights + swizzledWeight<W, inputs>(row, group) * 16);
}
