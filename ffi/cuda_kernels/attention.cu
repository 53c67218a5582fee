// Attention over a paged KV cache: head norm, RoPE and the write of new keys and values; then attention
// of any mix of prompts and single tokens.
//
// The order of all sums depends on a row's own context alone: its tokens are cut into parts of 256 at
// fixed places (0, 256, ...). A part has one maximum; its sums run over tokens in order. Parts are merged
// in order. Whether one block of threads does all parts of a row, or each part has its own, changes no bit.
//
// A row with position -1 fills up a batch: nothing is read, written or computed for it.
#include "heads.h"

namespace {

constexpr int threads = 128, warps = threads / 32;
constexpr int partTokens = 256, tileTokens = 64;

/// Norm (if there are weights) and rotation of queries and keys in place; keys and values go into the
/// cache. Rows of `qkv` are float32 [heads + 2 kvHeads][headDim]. `rope` has for each position the cosines of
/// headDim / 2 angles, then their sines. `slots`: block << blockShift | slot of each row.
/// Grid [rows, ceil((heads + 2 kvHeads) / 4)], 128 threads: a warp a head.
template <class T>
__device__ __forceinline__ void prepareHeads(float* qkv, const float* queryNorm, const float* keyNorm,
                                             const float* rope, const int* positions, const int* slots,
                                             const Cache<T>& cache, int heads, float epsilon) {
  const int row = int(blockIdx.x), headDim = cache.headDim, half = headDim / 2;
  const int allHeads = heads + 2 * cache.kvHeads;
  const int head = int(blockIdx.y) * warps + int(threadIdx.x) / 32;
  if (head >= allHeads || positions[row] < 0) return;
  float* from = qkv + (size_t(row) * allHeads + head) * headDim;
  const float* turns = rope + size_t(positions[row]) * headDim;
  if (head < heads) {
    prepareHead(from, queryNorm, turns, headDim, epsilon, [&](int i, float a, float b) {
      from[i] = a;
      from[half + i] = b;
    });
    return;
  }
  const bool isValue = head >= heads + cache.kvHeads;
  const int slotMask = (1 << cache.blockShift) - 1, kvHead = (head - heads) % cache.kvHeads;
  T* cached = keyAt(cache, slots[row] >> cache.blockShift, slots[row] & slotMask, kvHead);
  if (isValue) cached += valueOffset(cache);
  const float* norm = isValue ? nullptr : keyNorm;
  prepareHead(from, norm, isValue ? nullptr : turns, headDim, epsilon, [&](int i, float a, float b) {
    narrow(a, cached[i]);
    narrow(b, cached[half + i]);
  });
}

/// A part of a row's context, or several merged: exponentials are of scores less `largest`. `values` is
/// the sum of weighted values, in shared or global memory.
struct Part {
  float largest, sum;
};

/// Merges the next part into what came before; the factors are for the weighted values of both.
__device__ __forceinline__ Part merge(const Part& before, const Part& next, float& keep, float& take) {
  const float largest = fmaxf(before.largest, next.largest);
  keep = expf(before.largest - largest);
  take = expf(next.largest - largest);
  return {largest, fmaf(before.sum, keep, next.sum * take)};
}
__device__ __forceinline__ float mergeValue(float before, float next, float keep, float take) {
  return fmaf(before, keep, next * take);
}

/// What a block of threads works on: one row and one KV head, that is the query heads of its group.
template <class C>
struct Group {
  const Cache<C>& cache;
  const int* table;  ///< Blocks of the row's sequence.
  int kvHead, size;  ///< Query heads.
  int begin, end;    ///< Tokens that the row sees.
  float* queries;    ///< [size][headDim]
  float* scores;     ///< [size][partTokens], then exponentials
  float* values;     ///< [size][headDim] of the part
  Part* parts;       ///< [size] of the part
  unsigned char* tile;  ///< Keys or values of tileTokens, `pitch` bytes apart
  int pitch;
};

/// Brings keys or values of the tokens [first, first + tileTokens) into shared memory, as far as the row
/// sees them, which is all that is read afterwards.
template <class C>
__device__ __forceinline__ void loadTile(const Group<C>& group, int first, size_t offset) {
  const Cache<C>& cache = group.cache;
  const int vectors = cache.headDim / vectorElements<C>;
  __syncthreads();  // the tile before is no longer read
  for (int piece = int(threadIdx.x); piece < tileTokens * vectors; piece += threads) {
    const int token = piece / vectors, vector = piece % vectors, position = first + token;
    if (position < group.begin || position >= group.end) continue;
    const C* key = keyOfPosition(cache, group.table, position, group.kvHead);
    __pipeline_memcpy_async(group.tile + token * group.pitch + vector * 16,
                            key + offset + vector * vectorElements<C>, 16);
  }
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
}

/// Scores of a tile of keys: a thread has a token and every second head of the group.
template <class C>
__device__ __forceinline__ void scoreTile(const Group<C>& group, int first, int inPart, float scale) {
  const int token = int(threadIdx.x) % tileTokens, position = first + token, headDim = group.cache.headDim;
  const bool isSeen = position >= group.begin && position < group.end;
  const uint4* key = reinterpret_cast<const uint4*>(group.tile + token * group.pitch);
  for (int head = int(threadIdx.x) / tileTokens; head < group.size; head += threads / tileTokens) {
    float score = 0;
    for (int vector = 0; isSeen && vector < headDim / vectorElements<C>; vector++) {
      float k[vectorElements<C>];
      unpack<C>(key[vector], k);
      const float* query = group.queries + head * headDim + vector * vectorElements<C>;
UNROLL
      for (int i = 0; i < vectorElements<C>; i++) score = fmaf(query[i], k[i], score);
    }
    group.scores[head * partTokens + inPart + token] = isSeen ? score * scale : -INFINITY;
  }
}

/// Turns the scores of a part into exponentials. A warp has every fourth head.
template <class C>
__device__ __forceinline__ void exponentials(const Group<C>& group) {
  const int lane = int(threadIdx.x) % 32;
  for (int head = int(threadIdx.x) / 32; head < group.size; head += warps) {
    float* scores = group.scores + head * partTokens;
    float largest = -INFINITY, sum = 0;
    for (int i = lane; i < partTokens; i += 32) largest = fmaxf(largest, scores[i]);
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    }
    for (int i = lane; i < partTokens; i += 32) {
      scores[i] = expf(scores[i] - largest);
      sum += scores[i];
    }
    sum = sumOfWarp(sum);
    if (lane == 0) group.parts[head] = {largest, sum};
  }
}

/// Adds a tile of values, weighted, to `values`: a thread has some of the group's [size][headDim] sums.
template <class C>
__device__ __forceinline__ void weighTile(const Group<C>& group, int first, int inPart) {
  const int headDim = group.cache.headDim;
  const int from = max(first, group.begin) - first, to = min(group.end - first, tileTokens);
  for (int item = int(threadIdx.x); item < group.size * headDim; item += threads) {
    const int head = item / headDim, column = item % headDim;
    const float* weights = group.scores + head * partTokens + inPart;
    float sum = inPart == 0 ? 0.0f : group.values[item];
    for (int token = from; token < to; token++) {
      const C* values = reinterpret_cast<const C*>(group.tile + token * group.pitch);
      sum = fmaf(weights[token], widen(values[column]), sum);
    }
    group.values[item] = sum;
  }
}

/// Computes part `part` of the row: `parts` of the group, and `values`, of which a thread may read its own.
template <class C>
__device__ __forceinline__ void attendPart(const Group<C>& group, int part, float scale) {
  const int first = part * partTokens;
  const int tokens = min(group.end - first, partTokens);
  for (int inPart = 0; inPart < partTokens; inPart += tileTokens) {
    if (inPart < tokens) loadTile(group, first + inPart, 0);
    scoreTile(group, first + inPart, inPart, scale);
  }
  __syncthreads();
  exponentials(group);
  for (int inPart = 0; inPart < tokens; inPart += tileTokens) {
    loadTile(group, first + inPart, valueOffset(group.cache));
    weighTile(group, first + inPart, inPart);
  }
}

/// Grid [kvHeads, rows, z], 128 threads, `sharedBytes` of decoder_kernels.ts. `qkv`: see `prepareHeads`.
/// Row r belongs to sequence sequences[r], whose blocks are in tables[sequence * maxBlocks ...], and sees the tokens
/// up to positions[r], of them the last `window` if that is not 0.
/// If `partials` is null, z is 1 and the block does all parts. Else part z of each row goes to
/// partials [rows][heads][z][headDim + 2], for `mergeParts`.
template <class T, class C>
__device__ __forceinline__ void attend(const float* qkv, const int* positions, const int* sequences,
                                       const int* tables, const Cache<C>& cache, T* output, float* partials,
                                       int heads, int maxBlocks, int window, float scale) {
  DYNAMIC_SHARED(unsigned char, shared);
  const int kvHead = int(blockIdx.x), row = int(blockIdx.y), headDim = cache.headDim;
  const int size = heads / cache.kvHeads, items = size * headDim;
  const int end = positions[row] + 1, begin = window > 0 ? max(0, end - window) : 0;
  if (end == 0) return;
  int firstPart = begin / partTokens, lastPart = (end - 1) / partTokens;
  if (partials != nullptr) {
    const int part = int(blockIdx.z);
    if (part < firstPart || part > lastPart) return;
    firstPart = lastPart = part;
  }

  float* queries = reinterpret_cast<float*>(shared);
  float* merged = queries + items;
  float* values = merged + items;
  float* scores = values + items;
  Part* parts = reinterpret_cast<Part*>(scores + size * partTokens);
  Part* mergedParts = parts + size;
  // Items, scores and parts are multiples of 16 bytes in sum: headDim is a multiple of 8.
  unsigned char* tile = reinterpret_cast<unsigned char*>(mergedParts + size);
  const int* table = tables + size_t(sequences[row]) * maxBlocks;
  const Group<C> group{cache, table, kvHead, size, begin, end, queries, scores, values, parts, tile,
                       headDim * int(sizeof(C)) + 16};

  const size_t allHeads = size_t(heads) + 2 * cache.kvHeads;
  const float* from = qkv + (row * allHeads + size_t(kvHead) * size) * headDim;
  // The first tile's barriers order the queries, too.
  for (int item = int(threadIdx.x); item < items; item += threads) queries[item] = from[item];
  const size_t firstHead = size_t(row) * heads + size_t(kvHead) * size;

  for (int part = firstPart; part <= lastPart; part++) {
    attendPart(group, part, scale);
    for (int item = int(threadIdx.x); item < items; item += threads) {
      const int head = item / headDim;
      float keep, take;
      if (part > firstPart) {
        merge(mergedParts[head], parts[head], keep, take);
        merged[item] = mergeValue(merged[item], values[item], keep, take);
      } else {
        merged[item] = values[item];
      }
    }
    __syncthreads();  // the factors of all columns are of the parts as they were
    for (int head = int(threadIdx.x); head < size; head += threads) {
      float keep, take;
      mergedParts[head] = part > firstPart ? merge(mergedParts[head], parts[head], keep, take) : parts[head];
    }
    __syncthreads();
  }
  for (int item = int(threadIdx.x); item < items; item += threads) {
    const int head = item / headDim, column = item % headDim;
    if (partials == nullptr) {
      narrow(merged[item] / mergedParts[head].sum, output[(firstHead + head) * headDim + column]);
      continue;
    }
    float* to = partials + ((firstHead + head) * gridDim.z + blockIdx.z) * (headDim + 2);
    to[2 + column] = merged[item];
    if (column == 0) {
      to[0] = mergedParts[head].largest;
      to[1] = mergedParts[head].sum;
    }
  }
}

/// Merges the parts that `attend` left in `partials`. Grid [heads, rows], 128 threads.
template <class T>
__device__ __forceinline__ void mergeParts(const float* partials, const int* positions, T* output, int headDim,
                                           int maxParts, int window) {
  const int row = int(blockIdx.y), end = positions[row] + 1, begin = window > 0 ? max(0, end - window) : 0;
  if (end == 0) return;
  const int firstPart = begin / partTokens, lastPart = (end - 1) / partTokens;
  const size_t head = size_t(row) * gridDim.x + blockIdx.x;
  const float* from = partials + head * maxParts * (headDim + 2);
  for (int column = int(threadIdx.x); column < headDim; column += threads) {
    const float* part = from + size_t(firstPart) * (headDim + 2);
    Part merged = {part[0], part[1]};
    float value = part[2 + column];
    for (int next = firstPart + 1; next <= lastPart; next++) {
      part = from + size_t(next) * (headDim + 2);
      float keep, take;
      merged = merge(merged, {part[0], part[1]}, keep, take);
      value = mergeValue(value, part[2 + column], keep, take);
    }
    narrow(value / merged.sum, output[head * headDim + column]);
  }
}

}  // namespace

#ifndef TEMPLATES_ONLY
extern "C" __global__ void __launch_bounds__(128)
    prepare_heads_bf16(float* __restrict__ qkv, const float* __restrict__ queryNorm,
                       const float* __restrict__ keyNorm, const float* __restrict__ rope,
                       const int* __restrict__ positions, const int* __restrict__ slots, bf16* __restrict__ layer,
                       long long blockStride, int blockShift, int kvHeads, int headDim, int heads,
                       float epsilon) {
  const Cache<bf16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  prepareHeads(qkv, queryNorm, keyNorm, rope, positions, slots, cache, heads, epsilon);
}
extern "C" __global__ void __launch_bounds__(128)
    prepare_heads_f16(float* __restrict__ qkv, const float* __restrict__ queryNorm,
                      const float* __restrict__ keyNorm, const float* __restrict__ rope,
                      const int* __restrict__ positions, const int* __restrict__ slots, f16* __restrict__ layer,
                      long long blockStride, int blockShift, int kvHeads, int headDim, int heads, float epsilon) {
  const Cache<f16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  prepareHeads(qkv, queryNorm, keyNorm, rope, positions, slots, cache, heads, epsilon);
}
extern "C" __global__ void __launch_bounds__(128)
    prepare_heads_f32(float* __restrict__ qkv, const float* __restrict__ queryNorm,
                      const float* __restrict__ keyNorm, const float* __restrict__ rope,
                      const int* __restrict__ positions, const int* __restrict__ slots, f32* __restrict__ layer,
                      long long blockStride, int blockShift, int kvHeads, int headDim, int heads, float epsilon) {
  const Cache<f32> cache{layer, blockStride, blockShift, kvHeads, headDim};
  prepareHeads(qkv, queryNorm, keyNorm, rope, positions, slots, cache, heads, epsilon);
}

extern "C" __global__ void __launch_bounds__(128)
    attend_bf16(const float* __restrict__ qkv, const int* __restrict__ positions,
                const int* __restrict__ sequences, const int* __restrict__ tables, bf16* __restrict__ layer,
                long long blockStride, bf16* __restrict__ output, float* __restrict__ partials, int blockShift,
                int kvHeads, int headDim, int heads, int maxBlocks, int window, float scale) {
  const Cache<bf16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  attend(qkv, positions, sequences, tables, cache, output, partials, heads, maxBlocks, window, scale);
}
extern "C" __global__ void __launch_bounds__(128)
    attend_f16(const float* __restrict__ qkv, const int* __restrict__ positions,
               const int* __restrict__ sequences, const int* __restrict__ tables, f16* __restrict__ layer,
               long long blockStride, f16* __restrict__ output, float* __restrict__ partials, int blockShift,
               int kvHeads, int headDim, int heads, int maxBlocks, int window, float scale) {
  const Cache<f16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  attend(qkv, positions, sequences, tables, cache, output, partials, heads, maxBlocks, window, scale);
}
extern "C" __global__ void __launch_bounds__(128)
    attend_f32(const float* __restrict__ qkv, const int* __restrict__ positions,
               const int* __restrict__ sequences, const int* __restrict__ tables, f32* __restrict__ layer,
               long long blockStride, f32* __restrict__ output, float* __restrict__ partials, int blockShift,
               int kvHeads, int headDim, int heads, int maxBlocks, int window, float scale) {
  const Cache<f32> cache{layer, blockStride, blockShift, kvHeads, headDim};
  attend(qkv, positions, sequences, tables, cache, output, partials, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128)
    merge_parts_bf16(const float* __restrict__ partials, const int* __restrict__ positions,
                     bf16* __restrict__ output, int headDim, int maxParts, int window) {
  mergeParts(partials, positions, output, headDim, maxParts, window);
}
extern "C" __global__ void __launch_bounds__(128)
    merge_parts_f16(const float* __restrict__ partials, const int* __restrict__ positions,
                    f16* __restrict__ output, int headDim, int maxParts, int window) {
  mergeParts(partials, positions, output, headDim, maxParts, window);
}
extern "C" __global__ void __launch_bounds__(128)
    merge_parts_f32(const float* __restrict__ partials, const int* __restrict__ positions,
                    f32* __restrict__ output, int headDim, int maxParts, int window) {
  mergeParts(partials, positions, output, headDim, maxParts, window);
}
#endif
