// Attention of a decode step, one token of each sequence: norm and rotation of its heads, the write of its key
// and value, and attention to the context, in one kernel. `attention_tiles.h` has the order of the sums.
//
// A block of 4 warps has one KV head of one row. The query heads that share it are the rows of an mma. Each warp
// computes the scores of a quarter of a tile's tokens, and weighs a quarter of the columns of all its values.
// Old keys and values are loaded before the kernel before has ended; the new ones are put between them.
#include "attention_tiles.h"

namespace {

constexpr int warps = 4, threads = warps * 32;
/// Floats from a row of scores to the next, so that lanes read from different banks.
constexpr int scorePitch = tileTokens + 8;

/// What a block works on, and its shared memory.
template <class T, class C, int size>
struct Block {
  const Cache<C>& cache;
  const int* table;
  int row, kvHead, group;        ///< The group's heads are rows of the mma.
  int newest, begin;             ///< Tokens [begin, newest] are seen.
  T* queries;                    ///< [16][size]: heads of the group, then zeros
  T* fresh;                      ///< [2][size]: the new key and value
  float* scores;                 ///< [16][tileTokens]
};

/// Queries, and if the block has the newest token its key and value, which go into the cache, too.
template <class T, class C, int size>
__device__ __forceinline__ void prepareHeads(const Block<T, C, size>& block, const float* qkv, const float* queryNorm,
                                             const float* keyNorm, const float* rope, float epsilon, bool hasNewest) {
  const Cache<C>& cache = block.cache;
  const int headDim = cache.headDim, half = headDim / 2, group = block.group, heads = group * cache.kvHeads;
  for (int i = int(threadIdx.x); i < (rowsOfWarp + 2) * size; i += threads) {
    const int row = i / size, column = i % size;  // the rows of `fresh` follow those of `queries`
    const bool isHead = row < group || row >= rowsOfWarp;
    if (!isHead || column >= headDim) block.queries[row * pitch<size> + column] = T{0};
  }
  const float* turns = rope + size_t(block.newest) * headDim;
  const float* head = qkv + (size_t(block.row) * (heads + 2 * cache.kvHeads) + block.kvHead) * headDim;
  for (int i = int(threadIdx.x) / 32; i < group + (hasNewest ? 2 : 0); i += warps) {
    if (i < group) {
      const float* from = head + (block.kvHead * (group - 1) + i) * headDim;
      T* to = block.queries + i * pitch<size>;
      prepareHead(from, queryNorm, turns, headDim, epsilon, [&](int k, float a, float b) {
        narrow(a, to[k]);
        narrow(b, to[half + k]);
      });
      continue;
    }
    const bool isValue = i > group;
    T* to = block.fresh + (isValue ? pitch<size> : 0);
    C* cached = keyOfPosition(cache, block.table, block.newest, block.kvHead) + (isValue ? valueOffset(cache) : 0);
    const float* from = head + (heads + (isValue ? cache.kvHeads : 0)) * headDim;
    prepareHead(from, isValue ? nullptr : keyNorm, isValue ? nullptr : turns, headDim, epsilon,
                [&](int k, float a, float b) {
                  roundInto(a, cached[k], to[k]);
                  roundInto(b, cached[half + k], to[half + k]);
                });
  }
}

/// Puts the new key and value into their tile.
template <class T, class C, int size>
__device__ __forceinline__ void putNewest(const Block<T, C, size>& block, T* keys) {
  constexpr int vectors = size / 8;
  T* to = keys + block.newest % tileTokens * pitch<size>;
  for (int i = int(threadIdx.x); i < 2 * vectors; i += threads) {
    const int which = i / vectors, column = i % vectors * 8;
    *reinterpret_cast<uint4*>(to + which * tileTokens * pitch<size> + column) =
        *reinterpret_cast<const uint4*>(block.fresh + which * pitch<size> + column);
  }
}

/// A tile that has landed: the scores of all its tokens, and the columns of this warp.
template <class T, class C, int size, int tiles>
__device__ __forceinline__ void attendTile(const Block<T, C, size>& block, const unsigned (&queries)[size / 16][4],
                                           const T* keys, int tile, float scale, Weighed<tiles>& part) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int begin[2] = {block.begin, block.begin}, end[2] = {block.newest + 1, block.newest + 1};
  float mine[2][4];
  scoreTokens<T, size>(mine, queries, keys + warp * 16 * pitch<size>);
  float* to = block.scores + lane / 4 * scorePitch + lane % 4 * 2;
UNROLL
  for (int i = 0; i < 2; i++) {
    hide(mine[i], tile * tileTokens + warp * 16 + i * 8, begin, end);
    float* two = to + warp * 16 + i * 8;
    *reinterpret_cast<float2*>(two) = make_float2(mine[i][0], mine[i][1]);
    *reinterpret_cast<float2*>(two + 8 * scorePitch) = make_float2(mine[i][2], mine[i][3]);
  }
  __syncthreads();
  float scores[tilesOf8][4];
UNROLL
  for (int i = 0; i < tilesOf8; i++) {
    const float2 upper = *reinterpret_cast<const float2*>(to + i * 8);
    const float2 lower = *reinterpret_cast<const float2*>(to + i * 8 + 8 * scorePitch);
    scores[i][0] = upper.x;
    scores[i][1] = upper.y;
    scores[i][2] = lower.x;
    scores[i][3] = lower.y;
  }
  float keep[2];
  exponentials(scores, part.softmax, keep, scale);
  weigh<T, size, tiles / 2>(part.values, scores, keep, keys + tileTokens * pitch<size> + warp * tiles * 8);
}

/// Calls `put` with a head of the group, a column, two values of it and its softmax.
template <int tiles, class Put>
__device__ __forceinline__ void eachPair(const Weighed<tiles>& of, int group, int headDim, Put put) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
UNROLL
  for (int row = 0; row < 2; row++) {
    const int head = lane / 4 + 8 * row;
    if (head >= group) continue;
    const Part softmax = {of.softmax.largest[row], of.softmax.sum[row]};
UNROLL
    for (int i = 0; i < tiles; i++) {
      const int column = (warp * tiles + i) * 8 + lane % 4 * 2;
      if (column < headDim) put(head, column, of.values[i][2 * row], of.values[i][2 * row + 1], softmax);
    }
  }
}

/// Whether this block is the last of those of its row and KV head. It then sees what the others have written.
__device__ __forceinline__ bool isLastBlock(unsigned* finished, int blocks) {
  __shared__ bool isLast;
  __syncthreads();  // what all threads have written comes before the fence of the one that counts
  if (threadIdx.x == 0) {
    __threadfence();
    isLast = atomicAdd(finished, 1u) == unsigned(blocks - 1);
    if (isLast) atomicExch(finished, 0u);
    __threadfence();
  }
  __syncthreads();
  return isLast;
}

/// Grid [kvHeads, rows, z], 128 threads; shared memory: `ringBytes` of `stages` (2 or 3), [18][size] queries, new key and
/// value, [16] rows of scores. Row r of `qkv`, float32 [heads + 2 kvHeads][headDim], belongs to sequence sequences[r],
/// whose blocks are in tables[sequence * maxBlocks ...], and has position positions[r]; no other row has its
/// sequence. A row with position -1 fills up a batch: nothing is read or written for it. A row sees the last
/// `window` tokens if that is not 0. headDim is a multiple of 8, or of 16 for a cache of e4m3, up to `size`; a group has at most 16 heads.
/// If `partials` is null, z is 1 and the block does all parts. Else part z of each row goes to partials
/// [rows][heads][z][headDim + 2], and the last block of a row and KV head merges them: it finds out by
/// finished [rows][kvHeads], which is 0 before and behind.
template <class T, int size, class C>
__device__ __forceinline__ void decodeAttention(const float* qkv, const float* queryNorm, const float* keyNorm,
                                                const float* rope, const int* positions, const int* sequences,
                                                const int* tables, const Cache<C>& cache, T* output, float* partials,
                                                unsigned* finished, int heads, int maxBlocks, int window, int stages,
                                                float scale, float epsilon) {
  constexpr int tiles = size / 8 / warps;  // of columns, of a warp
  DYNAMIC_SHARED(unsigned char, shared);
  const int kvHead = int(blockIdx.x), row = int(blockIdx.y), headDim = cache.headDim, group = heads / cache.kvHeads;
  const int newest = positions[row], begin = window > 0 ? max(0, newest + 1 - window) : 0;
  int firstPart = begin / partTokens, lastPart = newest / partTokens;
  const int parts = lastPart - firstPart + 1;
  if (partials != nullptr) {
    const int part = int(blockIdx.z);
    const bool isThere = part >= firstPart && part <= lastPart;
    firstPart = part;
    lastPart = isThere ? part : -1;
  }
  if (newest < 0 || lastPart < firstPart) {
    grid_wait();
    grid_launch();
    return;
  }
  C* ring = reinterpret_cast<C*>(shared);
  T* widened = reinterpret_cast<T*>(ring + stages * stageElements<C, size>);
  T* queries = reinterpret_cast<T*>(shared + ringBytes<T, C, size>(stages));
  T* fresh = queries + rowsOfWarp * pitch<size>;
  float* scores = reinterpret_cast<float*>(fresh + 2 * pitch<size>);
  const int* table = tables + size_t(sequences[row]) * maxBlocks;
  const Block<T, C, size> block{cache, table, row, kvHead, group, newest, begin, queries, fresh, scores};

  const int firstTile = max(begin, firstPart * partTokens) / tileTokens;
  const int lastTile = min(newest / tileTokens, lastPart * tilesOfPart + tilesOfPart - 1);
  int loaded = 0;  // the stage that is filled next
  auto load = [&](int tile) {
    if (tile <= lastTile) {
      loadTile<C, size>(ring + loaded * stageElements<C, size>, cache, table, kvHead, tile, begin, newest, newest);
    }
    __pipeline_commit();
    if (++loaded == stages) loaded = 0;
  };
  for (int ahead = 0; ahead < stages - 1; ahead++) load(firstTile + ahead);

  grid_wait();
  grid_launch();
  prepareHeads(block, qkv, queryNorm, keyNorm, rope, epsilon, lastTile == newest / tileTokens);
  __syncthreads();
  unsigned operands[size / 16][4];
  loadQueries<T, size>(operands, queries);

  Weighed<tiles> all, part;
  int stage = 0;
  for (int tile = firstTile; tile <= lastTile; tile++) {
    if (stages == 2) {
      __pipeline_wait_prior(0);
    } else {
      __pipeline_wait_prior(1);
    }
    T* keys = widenTile<T, size>(ring + stage * stageElements<C, size>, widened, tile, newest);
    if (tile == newest / tileTokens) putNewest(block, keys);
    __syncthreads();  // the tile is there for all, and no warp reads the stage that is filled next
    load(tile + stages - 1);
    attendTile<T, C, size, tiles>(block, operands, keys, tile, scale, part);
    if (tile == lastTile || tile % tilesOfPart == tilesOfPart - 1) {
      part.finishPart();
      all.add(part, scale);
      part = Weighed<tiles>();
    }
    if (++stage == stages) stage = 0;
  }

  const size_t firstHead = size_t(row) * heads + size_t(kvHead) * group;
  if (partials == nullptr || parts == 1) {
    eachPair(all, group, headDim, [&](int head, int column, float a, float b, const Part& softmax) {
      const float share = 1.0f / softmax.sum;
      T* to = output + (firstHead + head) * headDim + column;
      *reinterpret_cast<unsigned*>(to) = packPair(a * share, b * share, T{});
    });
    return;
  }
  auto placeOf = [&](int head, int part) {
    return partials + ((firstHead + head) * gridDim.z + part) * (headDim + 2);
  };
  eachPair(all, group, headDim, [&](int head, int column, float a, float b, const Part& softmax) {
    float* to = placeOf(head, firstPart);
    *reinterpret_cast<float2*>(to + 2 + column) = make_float2(a, b);
    if (column == 0) *reinterpret_cast<float2*>(to) = make_float2(softmax.largest, softmax.sum);
  });
  if (!isLastBlock(finished + row * cache.kvHeads + kvHead, parts)) return;
  firstPart = begin / partTokens;
  for (int item = int(threadIdx.x); item < group * headDim; item += threads) {
    const int head = item / headDim, column = item % headDim;
    const float* from = placeOf(head, firstPart);
    Part merged = {hidden, 0.0f};
    float value = 0.0f;
    for (int part = 0; part < parts; part++, from += headDim + 2) {
      float keep, take;
      merged = merge(merged, {__ldcg(from), __ldcg(from + 1)}, keep, take, scale);
      value = mergeValue(value, __ldcg(from + 2 + column), keep, take);
    }
    narrow(value * (1.0f / merged.sum), output[(firstHead + head) * headDim + column]);
  }
}

}  // namespace

#ifndef TEMPLATES_ONLY
extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_bf16_64(const float* qkv, const float* __restrict__ queryNorm, const float* __restrict__ keyNorm,
                             const float* __restrict__ rope, const int* __restrict__ positions,
                             const int* __restrict__ sequences, const int* __restrict__ tables, bf16* layer,
                             long long blockStride, bf16* output, float* partials, unsigned* finished, int blockShift,
                             int kvHeads, int headDim, int heads, int maxBlocks, int window, int stages, float scale,
                             float epsilon) {
  const Cache<bf16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<bf16, 64>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_bf16_128(const float* qkv, const float* __restrict__ queryNorm, const float* __restrict__ keyNorm,
                             const float* __restrict__ rope, const int* __restrict__ positions,
                             const int* __restrict__ sequences, const int* __restrict__ tables, bf16* layer,
                             long long blockStride, bf16* output, float* partials, unsigned* finished, int blockShift,
                             int kvHeads, int headDim, int heads, int maxBlocks, int window, int stages, float scale,
                             float epsilon) {
  const Cache<bf16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<bf16, 128>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_f16_64(const float* qkv, const float* __restrict__ queryNorm, const float* __restrict__ keyNorm,
                             const float* __restrict__ rope, const int* __restrict__ positions,
                             const int* __restrict__ sequences, const int* __restrict__ tables, f16* layer,
                             long long blockStride, f16* output, float* partials, unsigned* finished, int blockShift,
                             int kvHeads, int headDim, int heads, int maxBlocks, int window, int stages, float scale,
                             float epsilon) {
  const Cache<f16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<f16, 64>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    decode_attention_f16_128(const float* qkv, const float* __restrict__ queryNorm, const float* __restrict__ keyNorm,
                             const float* __restrict__ rope, const int* __restrict__ positions,
                             const int* __restrict__ sequences, const int* __restrict__ tables, f16* layer,
                             long long blockStride, f16* output, float* partials, unsigned* finished, int blockShift,
                             int kvHeads, int headDim, int heads, int maxBlocks, int window, int stages, float scale,
                             float epsilon) {
  const Cache<f16> cache{layer, blockStride, blockShift, kvHeads, headDim};
  decodeAttention<f16, 128>(qkv, queryNorm, keyNorm, rope, positions, sequences, tables, cache, output, partials,
                            finished, heads, maxBlocks, window, stages, scale, epsilon);
}
#endif
