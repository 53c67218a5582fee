// Attention of many tokens of each sequence, such as prompts, to a paged cache that has their keys and values
// already. `attention_tiles.h` has the order of the sums, which is that of decode steps.
//
// A block has 64 queries of one KV head: tokens in turn, of each the heads that share the KV head. A warp has 16
// of them, and all tokens of a tile. While a tile is used, the next one is loaded.
#include "attention_tiles.h"

namespace {

constexpr int warps = 4, threads = warps * 32, queriesOfBlock = warps * rowsOfWarp;

/// Queries of a block: item i has head i % group of token i / group. The last one is repeated past the end.
struct Queries {
  int first, items, group;
  int position;  ///< Of token 0.
  int window;

  DEVICE_MEMBER int item(int i) const { return min(first + i, items - 1); }
  /// A query sees tokens [beginOf(end), end).
  DEVICE_MEMBER int end(int i) const { return position + item(i) / group + 1; }
  DEVICE_MEMBER int beginOf(int end) const { return window > 0 ? max(0, end - window) : 0; }
};

/// Grid [kvHeads, z, sequences], 128 threads; shared memory: `ringBytes` of two stages. Sequence s has the rows
/// [starts[s], starts[s + 1]) of `qkv`, float32 [heads + 2 kvHeads][headDim], which are the last of its lengths[s]
/// tokens. Norms and rotations are done, and the cache has all keys and values. z is enough for 64 queries a
/// block. A row sees the last `window` tokens if that is not 0. headDim is a multiple of 8, or of 16 for
/// a cache of e4m3, up to `size`.
template <class T, int size, class C>
__device__ __forceinline__ void promptAttention(const float* qkv, const int* starts, const int* lengths,
                                                const int* tables, const Cache<C>& cache, T* output, int heads,
                                                int maxBlocks, int window, float scale) {
  DYNAMIC_SHARED(unsigned char, shared);
  const int kvHead = int(blockIdx.x), sequence = int(blockIdx.z), headDim = cache.headDim;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, group = heads / cache.kvHeads;
  const int start = starts[sequence], rows = starts[sequence + 1] - start;
  const int first = int(gridDim.y - 1 - blockIdx.y) * queriesOfBlock;  // those that see most begin first
  if (first >= rows * group) return;
  const Queries queries{first, rows * group, group, lengths[sequence] - rows, window};
  const int* table = tables + size_t(sequence) * maxBlocks;
  C* ring = reinterpret_cast<C*>(shared);
  T* widened = reinterpret_cast<T*>(ring + 2 * stageElements<C, size>);

  const int begin = queries.beginOf(queries.end(0)), end = queries.end(queriesOfBlock - 1);
  const int lastTile = (end - 1) / tileTokens;
  auto load = [&](int tile, int stage) {
    if (tile <= lastTile) {
      loadTile<C, size>(ring + stage * stageElements<C, size>, cache, table, kvHead, tile, begin, end, -1);
    }
    __pipeline_commit();
  };
  load(begin / tileTokens, 0);

  // The queries pass through the second stage, or through the tile of those that are widened.
  T* narrowed = sizeof(C) == 1 ? widened : reinterpret_cast<T*>(ring + stageElements<C, size>);
  for (int i = int(threadIdx.x); i < queriesOfBlock * size / 4; i += threads) {
    const int row = i / (size / 4), column = i % (size / 4) * 4, item = queries.item(row);
    uint2 packed = make_uint2(0, 0);
    if (column < headDim) {
      const size_t head = size_t(start + item / group) * (heads + 2 * cache.kvHeads) + kvHead * group + item % group;
      const float4 q = *reinterpret_cast<const float4*>(qkv + head * headDim + column);
      packed = make_uint2(packPair(q.x, q.y, T{}), packPair(q.z, q.w, T{}));
    }
    *reinterpret_cast<uint2*>(narrowed + row * pitch<size> + column) = packed;
  }
  __syncthreads();
  unsigned operands[size / 16][4];
  loadQueries<T, size>(operands, narrowed + warp * rowsOfWarp * pitch<size>);

  const int firstOfWarp = warp * rowsOfWarp, firstOfLane = firstOfWarp + lane / 4;
  const int ends[2] = {queries.end(firstOfLane), queries.end(firstOfLane + 8)};
  const bool isIdle = first + firstOfWarp >= queries.items;

  Weighed<size / 8> all, part;
  for (int tile = begin / tileTokens, stage = 0; tile <= lastTile; tile++, stage ^= 1) {
    __pipeline_wait_prior(0);
    const T* keys = widenTile<T, size>(ring + stage * stageElements<C, size>, widened, tile, -1);
    __syncthreads();  // the tile is there for all, and no warp reads the stage that is filled next
    load(tile + 1, stage ^ 1);
    if (isIdle) continue;
    const int from = tile * tileTokens;
    const int begins[2] = {queries.beginOf(ends[0]), queries.beginOf(ends[1])};
    float scores[tilesOf8][4], keep[2];
UNROLL
    for (int i = 0; i < tilesOf8; i += 2) scoreTokens<T, size>(scores + i, operands, keys + i * 8 * pitch<size>);
    if (from < begins[1] || from + tileTokens > ends[0]) {
UNROLL
      for (int i = 0; i < tilesOf8; i++) hide(scores[i], from + i * 8, begins, ends);
    }
    exponentials(scores, part.softmax, keep, scale);
    weigh<T, size, size / 16>(part.values, scores, keep, keys + tileTokens * pitch<size>);
    if (tile == lastTile || tile % tilesOfPart == tilesOfPart - 1) {
      part.finishPart();
      all.add(part, scale);
      part = Weighed<size / 8>();
    }
  }

UNROLL
  for (int half = 0; half < 2; half++) {
    const int item = first + firstOfLane + 8 * half;
    if (item >= queries.items) continue;
    const float share = 1.0f / all.softmax.sum[half];
    T* to = output + (size_t(start + item / group) * heads + kvHead * group + item % group) * headDim;
UNROLL
    for (int i = 0; i < size / 8; i++) {
      const int column = i * 8 + lane % 4 * 2;
      const float a = all.values[i][2 * half] * share, b = all.values[i][2 * half + 1] * share;
      if (column < headDim) *reinterpret_cast<unsigned*>(to + column) = packPair(a, b, T{});
    }
  }
}

}  // namespace

#ifndef TEMPLATES_ONLY
extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_bf16_64(const float* __restrict__ qkv, const int* __restrict__ starts,
                             const int* __restrict__ lengths, const int* __restrict__ tables, bf16* __restrict__ layer,
                             long long blockStride, bf16* __restrict__ output, int blockShift, int kvHeads, int headDim,
                             int heads, int maxBlocks, int window, float scale) {
  const Cache<bf16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<bf16, 64>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_bf16_128(const float* __restrict__ qkv, const int* __restrict__ starts,
                             const int* __restrict__ lengths, const int* __restrict__ tables, bf16* __restrict__ layer,
                             long long blockStride, bf16* __restrict__ output, int blockShift, int kvHeads, int headDim,
                             int heads, int maxBlocks, int window, float scale) {
  const Cache<bf16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<bf16, 128>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_f16_64(const float* __restrict__ qkv, const int* __restrict__ starts,
                             const int* __restrict__ lengths, const int* __restrict__ tables, f16* __restrict__ layer,
                             long long blockStride, f16* __restrict__ output, int blockShift, int kvHeads, int headDim,
                             int heads, int maxBlocks, int window, float scale) {
  const Cache<f16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<f16, 64>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    prompt_attention_f16_128(const float* __restrict__ qkv, const int* __restrict__ starts,
                             const int* __restrict__ lengths, const int* __restrict__ tables, f16* __restrict__ layer,
                             long long blockStride, f16* __restrict__ output, int blockShift, int kvHeads, int headDim,
                             int heads, int maxBlocks, int window, float scale) {
  const Cache<f16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  promptAttention<f16, 128>(qkv, starts, lengths, tables, cache, output, heads, maxBlocks, window, scale);
}
#endif
