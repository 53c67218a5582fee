// Heads of queries, keys and values: their norm and rotation, and where the cache has keys and values.
//
// A block of the cache has, for each layer, keys [kvHeads][blockSize][headDim], then values likewise.
#pragma once
#include "elements.h"

/// Where the keys and values of a layer are.
template <class T>
struct Cache {
  T* layer;               ///< Of block 0.
  long long blockStride;  ///< Elements from block to block.
  int blockShift;         ///< A block has 1 << blockShift tokens.
  int kvHeads, headDim;
};

/// The key of a token in slot `slot` of block `block`; its value is `valueOffset` further.
template <class T>
__device__ __forceinline__ T* keyAt(const Cache<T>& cache, int block, int slot, int kvHead) {
  const size_t row = (size_t(kvHead) << cache.blockShift) + slot;
  return cache.layer + block * cache.blockStride + row * cache.headDim;
}
/// The key of the token at a position of the sequence with this table of blocks.
template <class T>
__device__ __forceinline__ T* keyOfPosition(const Cache<T>& cache, const int* table, int position, int kvHead) {
  const int slot = position & ((1 << cache.blockShift) - 1);
  return keyAt(cache, table[position >> cache.blockShift], slot, kvHead);
}
template <class T>
__device__ __forceinline__ size_t valueOffset(const Cache<T>& cache) {
  return (size_t(cache.kvHeads) << cache.blockShift) * cache.headDim;
}

/// Norm (if there are weights) and rotation (if there are angles) of a head by a warp. Element i turns with
/// element headDim / 2 + i by the angle whose cosine is turns[i], and whose sine is turns[headDim / 2 + i].
/// @param put is called with i, and the two elements
template <class Put>
__device__ __forceinline__ void prepareHead(const float* head, const float* norm, const float* turns, int headDim,
                                            float epsilon, Put put) {
  const int lane = int(threadIdx.x) % 32, half = headDim / 2;
  float scale = 1.0f;
  if (norm != nullptr) {
    float squares = 0;
    for (int i = lane; i < half; i += 32) {
      const float a = __ldcg(head + i), b = __ldcg(head + half + i);
      squares = fmaf(a, a, fmaf(b, b, squares));
    }
    scale = 1.0f / sqrtf(sumOfWarp(squares) / float(headDim) + epsilon);
  }
  for (int i = lane; i < half; i += 32) {
    float a = __ldcg(head + i), b = __ldcg(head + half + i);
    if (norm != nullptr) {
      a = a * scale * norm[i];
      b = b * scale * norm[half + i];
    }
    if (turns != nullptr) {
      const float cosine = turns[i], sine = turns[half + i], turned = fmaf(a, cosine, -(b * sine));
      b = fmaf(b, cosine, a * sine);
      a = turned;
    }
    put(i, a, b);
  }
}
