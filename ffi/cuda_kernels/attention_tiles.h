// Attention on tensor cores, in tiles of 64 tokens: the arithmetic that prompts and decode steps share.
//
// What a query gets depends on its own context alone. The context is cut at fixed places into parts of 256
// tokens, of four tiles. A part begins anew, and takes its tiles in order: scores by mma over the head; their
// largest so far; sums so far times 2^(before - after); the exponentials of the tile, and by mma the values that they
// weigh. Parts are merged in order. A tile that a query does not see changes none of its bits, so it does
// not matter which queries share a block of threads, nor whether parts are computed by one block or by several.
//
// A warp has 16 queries, as the rows of its mma: a lane has the scores of row lane / 4 and of the row 8
// further, for two neighbouring tokens of every 8.
#pragma once
#include "heads.h"
#include "tensor_cores.h"

constexpr int tileTokens = 64, tilesOfPart = 4, partTokens = tileTokens * tilesOfPart;
constexpr int tilesOf8 = tileTokens / 8, rowsOfWarp = 16;
/// The score of a token that a query does not see.
constexpr float hidden = -1e30f;

/// Elements from a row of `size` in shared memory to the next: 16 bytes more keep rows out of each
/// other's banks.
template <int size>
constexpr int pitch = size + 8;

/// Elements of a tile in shared memory: keys, then values.
template <int size>
constexpr int tileElements = 2 * tileTokens * pitch<size>;

// The cache has elements of type C: that of the products, T, or e4m3. Tiles come through a ring of stages. A stage of
// e4m3 is widened, exactly, into a tile of T behind the ring, by the threads that have loaded it.

/// From a token to the next in a stage.
template <class C, int size>
constexpr int stagePitch = sizeof(C) == 1 ? size : pitch<size>;
template <class C, int size>
constexpr int stageElements = 2 * tileTokens * stagePitch<C, size>;
/// Bytes of the ring and the tile behind it.
template <class T, class C, int size>
__device__ __forceinline__ int ringBytes(int stages) {
  return stages * stageElements<C, size> * int(sizeof(C)) + (sizeof(C) == 1 ? tileElements<size> * int(sizeof(T)) : 0);
}

/// Largest score and sum of exponentials, of a lane's two rows.
struct Softmax {
  float largest[2] = {hidden, hidden}, sum[2] = {0.0f, 0.0f};
};

/// Starts to load a tile: tokens of [begin, end) but for `newest`; zeros for the others, and where a head is
/// smaller than `size`.
template <class C, int size>
__device__ __forceinline__ void loadTile(C* keys, const Cache<C>& cache, const int* table, int kvHead, int tile,
                                         int begin, int end, int newest) {
  constexpr int vectors = size / vectorElements<C>;
UNROLL_BY(2)
  for (int piece = int(threadIdx.x); piece < tileTokens * vectors; piece += 128) {
    const int token = piece / vectors, column = piece % vectors * vectorElements<C>;
    const int position = tile * tileTokens + token;
    if (position == newest) continue;
    const bool isThere = position >= begin && position < end && column < cache.headDim;
    const C* key = isThere ? keyOfPosition(cache, table, position, kvHead) + column : cache.layer;
    C* to = keys + token * stagePitch<C, size> + column;
    copy_async_16(to, key, isThere);
    copy_async_16(to + tileTokens * stagePitch<C, size>, isThere ? key + valueOffset(cache) : key, isThere);
  }
}

/// Sixteen numbers of e4m3. NaN stays NaN: another row may have written it.
template <class T>
__device__ __forceinline__ void widenSixteen(const uint4& codes, T* to) {
  uint4* halves = reinterpret_cast<uint4*>(to);
  halves[0] = widenEight<T>(make_uint2(codes.x, codes.y));
  halves[1] = widenEight<T>(make_uint2(codes.z, codes.w));
  // One more than 0x7f carries into the highest bit of its byte.
  const auto carries = [](unsigned word) { return (word & 0x7f7f7f7fu) + 0x01010101u; };
  if (((carries(codes.x) | carries(codes.y) | carries(codes.z) | carries(codes.w)) & 0x80808080u) == 0) return;
  const unsigned words[4] = {codes.x, codes.y, codes.z, codes.w};
  for (int i = 0; i < 16; i++) narrow(widen(e4m3{uint8_t(words[i / 4] >> i % 4 * 8)}), to[i]);
}

/// The tile that a stage holds, once the copies of the calling thread have landed: `stage` itself, or `tile` with what
/// the stage has, but for the newest token.
template <class T, int size>
__device__ __forceinline__ T* widenTile(T* stage, T*, int, int) {
  return stage;
}
template <class T, int size>
__device__ __forceinline__ T* widenTile(const e4m3* stage, T* tile, int index, int newest) {
  constexpr int vectors = size / 16;
  __syncthreads();  // no warp reads the tile before
  for (int piece = int(threadIdx.x); piece < tileTokens * vectors; piece += 128) {
    const int token = piece / vectors, column = piece % vectors * 16;
    if (index * tileTokens + token == newest) continue;
UNROLL
    for (int which = 0; which < 2; which++) {
      const int row = which * tileTokens + token;
      widenSixteen(*reinterpret_cast<const uint4*>(stage + row * size + column), tile + row * pitch<size> + column);
    }
  }
  return tile;
}

/// The 16 queries of a warp, as operands: [16][size] in shared memory.
template <class T, int size>
__device__ __forceinline__ void loadQueries(unsigned (&queries)[size / 16][4], const T* from) {
  const int lane = int(threadIdx.x) % 32;
UNROLL
  for (int k = 0; k < size / 16; k++) ldmatrix_x4(queries[k], from + lane % 16 * pitch<size> + k * 16 + lane / 16 * 8);
}

/// Scores of 16 tokens. `keys` is the key of the first; scores[0] takes the first 8 tokens, scores[1] the rest.
template <class T, int size>
__device__ __forceinline__ void scoreTokens(float (*scores)[4], const unsigned (&queries)[size / 16][4],
                                            const T* keys) {
  const int lane = int(threadIdx.x) % 32;
UNROLL
  for (int i = 0; i < 4; i++) scores[0][i] = scores[1][i] = 0.0f;
UNROLL
  for (int k = 0; k < size / 16; k++) {
    unsigned pair[4];
    ldmatrix_x4(pair, keys + (lane / 16 * 8 + lane % 8) * pitch<size> + k * 16 + lane / 8 % 2 * 8);
    multiplyAdd(scores[0], queries[k], pair, T{});
    multiplyAdd(scores[1], queries[k], pair + 2, T{});
  }
}

/// Hides scores of tokens `first` to `first` + 7: row i of the two sees tokens begin[i] to end[i] - 1 only.
__device__ __forceinline__ void hide(float (&scores)[4], int first, const int (&begin)[2], const int (&end)[2]) {
  const int token = first + int(threadIdx.x) % 4 * 2;
UNROLL
  for (int i = 0; i < 4; i++) {
    if (token + i % 2 < begin[i / 2] || token + i % 2 >= end[i / 2]) scores[i] = hidden;
  }
}

/// Turns the scores of a tile into exponentials. `scale` is that of scores, times log2(e).
/// @param keep factors for what was summed before
__device__ __forceinline__ void exponentials(float (&scores)[tilesOf8][4], Softmax& softmax, float (&keep)[2],
                                             float scale) {
UNROLL
  for (int row = 0; row < 2; row++) {
    const float before = softmax.largest[row];
    float largest = before, sum = 0.0f;
UNROLL
    for (int i = 0; i < tilesOf8; i++) {
      largest = fmaxf(largest, fmaxf(scores[i][2 * row], scores[i][2 * row + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    keep[row] = exp2_approx((before - largest) * scale);
    // If nothing is seen yet, hidden scores must not be their own maximum.
    const float offset = largest <= hidden ? 0.0f : largest * scale;
UNROLL
    for (int i = 0; i < tilesOf8; i++) {
UNROLL
      for (int k = 2 * row; k < 2 * row + 2; k++) {
        scores[i][k] = exp2_approx(fmaf(scores[i][k], scale, -offset));
        sum += scores[i][k];
      }
    }
    softmax.sum[row] = fmaf(softmax.sum[row], keep[row], sum);
    softmax.largest[row] = largest;
  }
}

/// weighed = weighed * keep + weights * values, for 16 `pairs` columns from `values` on.
template <class T, int size, int pairs>
__device__ __forceinline__ void weigh(float (&weighed)[2 * pairs][4], const float (&weights)[tilesOf8][4],
                                      const float (&keep)[2], const T* values) {
  const int lane = int(threadIdx.x) % 32;
UNROLL
  for (int i = 0; i < 2 * pairs; i++) {
UNROLL
    for (int k = 0; k < 4; k++) weighed[i][k] *= keep[k / 2];
  }
UNROLL
  for (int k = 0; k < tileTokens / 16; k++) {
    unsigned tokens[4];
UNROLL
    for (int i = 0; i < 4; i++) {
      const float* two = weights[2 * k + i / 2] + i % 2 * 2;
      tokens[i] = packPair(two[0], two[1], T{});
    }
UNROLL
    for (int pair = 0; pair < pairs; pair++) {
      unsigned columns[4];
      ldmatrix_x4_trans(columns, values + (k * 16 + lane % 16) * pitch<size> + pair * 16 + lane / 16 * 8);
      multiplyAdd(weighed[2 * pair], tokens, columns, T{});
      multiplyAdd(weighed[2 * pair + 1], tokens, columns + 2, T{});
    }
  }
}

/// A part's softmax, or that of several merged, of one row.
struct Part {
  float largest, sum;
};
/// Merges the next part into what came before; the factors are for the weighed values of both.
__device__ __forceinline__ Part merge(const Part& before, const Part& next, float& keep, float& take, float scale) {
  const float largest = fmaxf(before.largest, next.largest);
  keep = exp2_approx((before.largest - largest) * scale);
  take = exp2_approx((next.largest - largest) * scale);
  return {largest, fmaf(before.sum, keep, next.sum * take)};
}
__device__ __forceinline__ float mergeValue(float before, float next, float keep, float take) {
  return fmaf(before, keep, next * take);
}

/// Parts of a lane's two rows, and columns of what they weigh.
template <int tiles>
struct Weighed {
  Softmax softmax;
  float values[tiles][4] = {};

  /// Adds the sums of the lanes that share a row. To be called at the end of a part.
  DEVICE_MEMBER void finishPart() {
UNROLL
    for (int row = 0; row < 2; row++) {
      softmax.sum[row] += __shfl_xor_sync(0xffffffffu, softmax.sum[row], 1);
      softmax.sum[row] += __shfl_xor_sync(0xffffffffu, softmax.sum[row], 2);
    }
  }

  DEVICE_MEMBER void add(const Weighed& next, float scale) {
    float keep[2], take[2];
UNROLL
    for (int row = 0; row < 2; row++) {
      const Part merged = merge({softmax.largest[row], softmax.sum[row]},
                                {next.softmax.largest[row], next.softmax.sum[row]}, keep[row], take[row], scale);
      softmax.largest[row] = merged.largest;
      softmax.sum[row] = merged.sum;
    }
UNROLL
    for (int i = 0; i < tiles; i++) {
UNROLL
      for (int k = 0; k < 4; k++) values[i][k] = mergeValue(values[i][k], next.values[i][k], keep[k / 2], take[k / 2]);
    }
  }
};
