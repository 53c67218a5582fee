// Products on tensor cores in the types of 16 bits, and the one order of sums of linear layers.
#pragma once
#include "elements.h"
#include "ptx.h"

/// d[16 x 8] += a[16 x 16] b[16 x 8]; see ptx.h.
__device__ __forceinline__ void multiplyAdd(float* d, const unsigned* a, const unsigned* b, bf16) { mma_bf16(d, a, b); }
__device__ __forceinline__ void multiplyAdd(float* d, const unsigned* a, const unsigned* b, f16) { mma_f16(d, a, b); }

/// Two numbers, rounded; `low` in the low half.
__device__ __forceinline__ unsigned packPair(float low, float high, bf16) { return pack_bf16(low, high); }
__device__ __forceinline__ unsigned packPair(float low, float high, f16) { return pack_f16(low, high); }

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

/// Where piece `piece` (16 bytes) of row `row` lies in shared memory: lanes of two neighbouring rows then
/// read from different banks.
__device__ __forceinline__ int swizzled(int row, int piece) { return piece ^ (row & 1) * 4; }
