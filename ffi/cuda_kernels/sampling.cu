// The choice of tokens, as src/executor/sampling has it on the host: the same token, bit for bit.
//
// Weights are integers, so that their sums depend on no order, and histograms may use atomics. What is not an
// integer is float64 in the host's order of operations: nothing is fused. A block has one row.
#include "portable.h"

namespace {

using u64 = unsigned long long;

constexpr unsigned wholeWarp = 0xffffffffu;
constexpr int mostWarps = 32;
constexpr int bins = 2048;
/// Weights below e^-50 of the largest count as 0 (`negligibleExponent` of the host).
constexpr double negligibleExponent = 50;

/// What a row asks for. As `writeRowChoice` of sampling_kernels.ts writes it.
struct RowChoice {
  double inverseTemperature;
  double dropShare;    ///< 1 - top-p; negative: no cut.
  double leastWeight;  ///< min-p as a weight; 0: no cut.
  unsigned seedLow, seedHigh, position;
  int topK;      ///< 0: no cut.
  int numTop;    ///< Most likely tokens to report; -1: no log probabilities.
  int edits;     ///< Where the row's edits begin, in words; -1: none.
  int mode;      ///< 0: leave the row alone; 1: greedy; 2: draw.
  int padding[3];
};
static_assert(sizeof(RowChoice) == 64);

/// What became of a row.
struct Chosen {
  int token;    ///< With status 1: the token whose logit is garbage.
  int status;   ///< 0: chosen; 1: a logit is NaN or infinite; 2: nothing to choose.
  int rank;     ///< 1 + tokens that are more likely.
  int kept;     ///< Tokens that the cuts have left.
  float largest;  ///< The largest logit.
  float value;    ///< The token's logit.
  u64 total;      ///< Sum of the weights that are left.
};
static_assert(sizeof(Chosen) == 32);

struct TopToken {
  int token;
  float value;
};

/// How a row's logits are changed before the choice; entries follow in this order. Entries of two words have
/// room for a logit: the kernel puts the old one there.
struct Edits {
  int numBias;      ///< Entries of four words: token, nothing, float64 bias.
  int numAllowed;   ///< Of two: token, room. -1: all tokens are allowed.
  int numExcluded;  ///< Of two: token, room. Last tokens of bad words.
  int numEnds;      ///< Of two: token, room. Not possible yet (min_tokens).
  int numPenalties;  ///< Of two: token, how often it is in the output.
  int keepsEnds;    ///< 1: the ends stay possible where nothing else is.
  int padding[2];
  double repetitionPenalty, frequencyPenalty, presencePenalty;
};
static_assert(sizeof(Edits) == 56);

struct Entry {
  int token;
  int word;
};
struct Bias {
  int token;
  int padding;
  double bias;
};

/// An unsigned integer that orders like the float, and has one zero.
__device__ __forceinline__ unsigned orderedKey(float value) {
  const unsigned bits = __float_as_uint(value);
  if (bits << 1 == 0) return 0x80000000u;
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ u64 sumOfWarp64(u64 value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(wholeWarp, value, lanes);
  return value;
}
/// The sum of the lanes up to this one.
__device__ __forceinline__ u64 scanOfWarp(u64 value) {
  const int lane = int(threadIdx.x) % 32;
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const u64 other = __shfl_sync(wholeWarp, value, lane >= lanes ? lane - lanes : lane);
    if (lane >= lanes) value += other;
  }
  return value;
}

/// Shared memory of the helpers below. Each of them leaves it free for the next, but for `found` and `below`: they are
/// written behind a barrier of the helper that writes them, and so after the one before has read them.
struct Scratch {
  u64 histogram[bins];
  u64 ofWarps[mostWarps];
  u64 found, below;
  float values[mostWarps];
  int tokens[mostWarps];
};

/// Sum over the block, in each thread.
__device__ __forceinline__ u64 sumOfBlock64(u64 value, Scratch& scratch) {
  value = sumOfWarp64(value);
  if (threadIdx.x % 32 == 0) scratch.ofWarps[threadIdx.x / 32] = value;
  __syncthreads();
  u64 sum = 0;
  for (int warp = 0; warp < int(blockDim.x) / 32; warp++) sum += scratch.ofWarps[warp];
  __syncthreads();
  return sum;
}

/// A token and its logit. The larger logit comes first, then the lower token.
struct Ranked {
  float value;
  int token;
};
__device__ __forceinline__ bool isBefore(Ranked a, Ranked b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

/// The first of all threads' tokens, in each thread. Tokens below 0 are none.
__device__ __forceinline__ Ranked firstOfBlock(Ranked mine, Scratch& scratch) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const Ranked other = {__shfl_xor_sync(wholeWarp, mine.value, lanes),
                          __shfl_xor_sync(wholeWarp, mine.token, lanes)};
    if (other.token >= 0 && (mine.token < 0 || isBefore(other, mine))) mine = other;
  }
  if (threadIdx.x % 32 == 0) {
    scratch.values[threadIdx.x / 32] = mine.value;
    scratch.tokens[threadIdx.x / 32] = mine.token;
  }
  __syncthreads();
  for (int warp = 0; warp < int(blockDim.x) / 32; warp++) {
    const Ranked other = {scratch.values[warp], scratch.tokens[warp]};
    if (other.token >= 0 && (mine.token < 0 || isBefore(other, mine))) mine = other;
  }
  __syncthreads();
  return mine;
}

/// The first token, by its id, at which the running sum of `weightOf` exceeds `target`. There is one.
template <class WeightOf>
__device__ __forceinline__ int firstTokenAbove(WeightOf weightOf, int width, u64 target, Scratch& scratch) {
  const int warps = int(blockDim.x) / 32, warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int run = ((width + warps - 1) / warps + 31) / 32 * 32;
  const int begin = warp * run, end = min(width, begin + run);
  u64 sum = 0;
  for (int i = begin + lane; i < end; i += 32) sum += weightOf(i);
  sum = sumOfWarp64(sum);
  if (lane == 0) scratch.ofWarps[warp] = sum;
  __syncthreads();
  u64 before = 0;
  for (int i = 0; i < warp; i++) before += scratch.ofWarps[i];
  if (before <= target && target < before + sum) {
    for (int i = begin; i < end; i += 32) {
      const u64 weight = i + lane < end ? weightOf(i + lane) : 0;
      const u64 scan = before + scanOfWarp(weight);
      if (scan > target && scan - weight <= target) scratch.found = u64(i + lane);
      before = __shfl_sync(wholeWarp, scan, 31);
      if (before > target) break;
    }
  }
  __syncthreads();
  return int(scratch.found);
}

/// Goes through the bins from the last to the first. Returns the bin at which the running sum, which begins
/// with `below`, exceeds `limit`, and adds the sum of the bins before it to `below`. There is one.
__device__ __forceinline__ int binAbove(u64 limit, u64& below, Scratch& scratch) {
  const int warps = int(blockDim.x) / 32, warp = int(threadIdx.x) / 32;
  const int perThread = bins / int(blockDim.x);
  const int first = bins - 1 - int(threadIdx.x) * perThread;
  u64 mine = 0;
  for (int i = 0; i < perThread; i++) mine += scratch.histogram[first - i];
  const u64 scan = scanOfWarp(mine);
  if (threadIdx.x % 32 == 31) scratch.ofWarps[warp] = scan;
  __syncthreads();
  u64 sum = below + scan - mine;
  for (int i = 0; i < warps; i++) sum += i < warp ? scratch.ofWarps[i] : 0;
  if (sum <= limit && limit < sum + mine) {
    int bin = first;
    while (sum + scratch.histogram[bin] <= limit) sum += scratch.histogram[bin--];
    scratch.found = u64(bin);
    scratch.below = sum;
  }
  __syncthreads();
  below = scratch.below;
  return int(scratch.found);
}

/// A cut: tokens with larger keys stay, and those with this key up to this id.
struct Cut {
  unsigned key;
  int lastToken;
};

/// Goes through the tokens from the smallest logit up, ties from the highest id down, and sums their weights.
/// Stops at the token at which the sum exceeds `limit`, which stays (`RankSelector` of the host).
/// @param weightOf 0 for tokens that are out already
template <class WeightOf>
__device__ __forceinline__ Cut cutAbove(const float* logits, WeightOf weightOf, int width, double largest,
                                        double scale, u64 limit, Scratch& scratch) {
  // The first bins are of the distance to the largest logit: by their bits most logits would meet in a few
  // bins, and wait for each other. What is far away is in the last bin, and summed by each thread.
  const double binsOfDistance = scale * (bins / negligibleExponent);
  auto binOf = [=](float value) {
    const double distance = (largest - double(value)) * binsOfDistance;
    return distance < bins - 1 ? int(distance) : bins - 1;
  };
  u64 below = 0;
  int bin = 0;
  unsigned prefix = 0;
  for (int level = 0; level < 4; level++) {
    const int shift = level == 1 ? 21 : level == 2 ? 10 : 0;
    const unsigned mask = level == 3 ? 0x3ffu : 0x7ffu;
    const int bitsAbove = level == 1 ? 0 : level == 2 ? 21 : 10;
    for (int i = int(threadIdx.x); i < bins; i += int(blockDim.x)) scratch.histogram[i] = 0;
    __syncthreads();
    u64 far = 0;
    for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) {
      const u64 weight = weightOf(i);
      if (weight == 0) continue;
      const int place = binOf(logits[i]);
      if (level == 0) {
        if (place == bins - 1) far += weight;
        else atomicAdd(&scratch.histogram[place], weight);
        continue;
      }
      const unsigned key = orderedKey(logits[i]);
      if (place != bin || (level > 1 && key >> bitsAbove != prefix)) continue;
      // From the last bin to the first: the smallest key comes last in the table.
      atomicAdd(&scratch.histogram[bins - 1 - int(key >> shift & mask)], weight);
    }
    if (level == 0) {
      far = sumOfWarp64(far);
      if (threadIdx.x % 32 == 0 && far != 0) atomicAdd(&scratch.histogram[bins - 1], far);
    }
    __syncthreads();
    const int found = binAbove(limit, below, scratch);
    if (level == 0) bin = found;
    else prefix = prefix << (level == 3 ? 10 : 11) | unsigned(bins - 1 - found);
  }
  // All of the last bin have one key, and so one weight.
  u64 mine = 0, weightOfOne = 0;
  for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) {
    const u64 weight = weightOf(i);
    if (weight == 0 || orderedKey(logits[i]) != prefix) continue;
    mine++;
    weightOfOne = weight;
  }
  const u64 equals = sumOfBlock64(mine, scratch);
  const u64 weightOfAll = sumOfBlock64(mine * weightOfOne, scratch);
  const u64 most = (limit - below) / (weightOfAll / equals), out = most < equals ? most : equals - 1;
  auto isEqual = [=](int i) { return u64(weightOf(i) != 0 && orderedKey(logits[i]) == prefix); };
  return {prefix, firstTokenAbove(isEqual, width, equals - out - 1, scratch)};
}

/// exp(-x) for 0 <= x < 50 as the host computes it (`expMinus` of distribution.ts).
/// @param table exp(-k / 64)
__device__ __forceinline__ double expMinus(double x, const double* table) {
  const int k = int(__dadd_rn(__dmul_rn(x, 64), 0.5));
  const double r = __dadd_rn(double(k) / 64, -x);
  double series = __dadd_rn(1.0 / 24, __dmul_rn(r, 1.0 / 120));
  series = __dadd_rn(1.0 / 6, __dmul_rn(r, series));
  series = __dadd_rn(1.0 / 2, __dmul_rn(r, series));
  series = __dadd_rn(1, __dmul_rn(r, series));
  series = __dadd_rn(1, __dmul_rn(r, series));
  return __dmul_rn(table[k], series);
}

/// 53 random bits of a position of a request (`uniformAt` of src/core/random.ts).
__device__ __forceinline__ u64 randomBits(unsigned position, unsigned key0, unsigned key1) {
  unsigned c0 = position, c1 = 0, c2 = 0, c3 = 0;
  for (int round = 0; round < 10; round++) {
    const u64 product0 = u64(0xd2511f53u) * c0, product1 = u64(0xcd9e8d57u) * c2;
    c0 = unsigned(product1 >> 32) ^ c1 ^ key0;
    c1 = unsigned(product1);
    c2 = unsigned(product0 >> 32) ^ c3 ^ key1;
    c3 = unsigned(product0);
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return (u64(c0 >> 5) << 26) + (c1 >> 6);
}

/// Whether a token of the row is possible; NaN counts.
/// @param flag of the block; a barrier must lie between two calls
__device__ __forceinline__ bool isAnyPossible(const float* row, int width, unsigned* flag) {
  if (threadIdx.x == 0) *flag = 0;
  __syncthreads();
  bool mine = false;
  for (int i = int(threadIdx.x); i < width && !mine; i += int(blockDim.x)) mine = row[i] != -INFINITY;
  if (mine) atomicMax(flag, 1u);
  __syncthreads();
  return *flag != 0;
}

/// Makes tokens impossible, unless nothing is possible then.
__device__ __forceinline__ void exclude(float* row, int width, Entry* entries, int count, bool always,
                                        unsigned* flag) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) {
    entries[i].word = __float_as_int(row[entries[i].token]);
    row[entries[i].token] = -INFINITY;
  }
  if (count == 0 || always || isAnyPossible(row, width, flag)) {
    __syncthreads();
    return;
  }
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) {
    row[entries[i].token] = __int_as_float(entries[i].word);
  }
  __syncthreads();
}

}  // namespace

/// Changes the rows' logits as their requests ask. The tokens of a list are different. Grid [rows], a multiple
/// of 32 threads.
extern "C" __global__ void __launch_bounds__(1024)
    edit_logits(float* __restrict__ logits, const RowChoice* __restrict__ choices, int* __restrict__ edits,
                int width) {
  __shared__ unsigned flag;
  const RowChoice& choice = choices[blockIdx.x];
  if (choice.mode == 0 || choice.edits < 0) return;
  float* row = logits + size_t(blockIdx.x) * width;
  const Edits& edit = *reinterpret_cast<const Edits*>(edits + choice.edits);
  const int first = int(threadIdx.x), step = int(blockDim.x);

  const Bias* biases = reinterpret_cast<const Bias*>(&edit + 1);
  for (int i = first; i < edit.numBias; i += step) {
    row[biases[i].token] = float(__dadd_rn(double(row[biases[i].token]), biases[i].bias));
  }
  __syncthreads();
  Entry* entries = reinterpret_cast<Entry*>(edits + choice.edits + sizeof(Edits) / 4) + 2 * edit.numBias;
  if (edit.numAllowed >= 0) {
    for (int i = first; i < edit.numAllowed; i += step) {
      entries[i].word = __float_as_int(row[entries[i].token]);
    }
    __syncthreads();
    // NaN stays where it is, so that a broken model is noticed.
    for (int i = first; i < width; i += step) {
      if (row[i] < INFINITY) row[i] = -INFINITY;
    }
    __syncthreads();
    for (int i = first; i < edit.numAllowed; i += step) {
      row[entries[i].token] = __int_as_float(entries[i].word);
    }
    __syncthreads();
    entries += edit.numAllowed;
  }
  exclude(row, width, entries, edit.numExcluded, false, &flag);
  entries += edit.numExcluded;
  exclude(row, width, entries, edit.numEnds, edit.keepsEnds == 0, &flag);
  entries += edit.numEnds;

  for (int i = first; i < edit.numPenalties; i += step) {
    float& at = row[entries[i].token];
    if (at == -INFINITY) continue;
    const int count = entries[i].word;
    const double logit = double(at);
    double value = logit > 0 ? __ddiv_rn(logit, edit.repetitionPenalty)
                             : __dmul_rn(logit, edit.repetitionPenalty);
    if (count > 0) {
      const double penalty =
          __dadd_rn(__dmul_rn(edit.frequencyPenalty, double(count)), edit.presencePenalty);
      value = __dadd_rn(value, -penalty);
    }
    constexpr double most = 3.4028234663852886e38;  // an extreme penalty must not look like a broken model
    at = float(value > most ? most : value < -most ? -most : value);
  }
}

/// Chooses a token for each row. Grid [rows], 32 to 1024 threads, a power of two.
/// @param expTable exp(-k / 64), `expTable` of the host
/// @param weights [rows, width], scratch
/// @param largestWeight the weight of the largest logit
/// @param tokens [rows]: the tokens alone; -1 where there is none
/// @param top [rows, mostTop]: the most likely tokens of rows that want them
extern "C" __global__ void __launch_bounds__(1024)
    choose_token(const float* __restrict__ logits, const RowChoice* __restrict__ choices,
                 const double* __restrict__ expTable, u64* __restrict__ weights, double largestWeight,
                 Chosen* __restrict__ chosen, int* __restrict__ tokens, TopToken* __restrict__ top, int width,
                 int mostTop) {
  __shared__ Scratch scratch;
  const RowChoice choice = choices[blockIdx.x];
  if (choice.mode == 0) return;
  const float* row = logits + size_t(blockIdx.x) * width;
  u64* weightOf = weights + size_t(blockIdx.x) * width;
  Chosen& result = chosen[blockIdx.x];
  const int first = int(threadIdx.x), step = int(blockDim.x);

  Ranked best = {-INFINITY, -1}, garbage = {0, -1};
  for (int i = first; i < width; i += step) {
    const float value = row[i];
    if (value > best.value) best = {value, i};
    if (garbage.token < 0 && !(value < INFINITY)) garbage.token = i;
  }
  garbage = firstOfBlock(garbage, scratch);
  best = firstOfBlock(best, scratch);
  if (garbage.token >= 0 || best.token < 0) {
    if (first == 0) {
      const int status = garbage.token >= 0 ? 1 : 2;
      result = {garbage.token, status, 0, 0, 0, status == 1 ? row[garbage.token] : 0, 0};
      tokens[blockIdx.x] = -1;
    }
    return;
  }
  if (choice.mode == 1 && choice.numTop < 0) {
    if (first == 0) {
      result = {best.token, 0, 1, width, best.value, best.value, 0};
      tokens[blockIdx.x] = best.token;
    }
    return;
  }

  // Tokens that a cut takes out weigh nothing. `cut` says more: a token that is left may weigh nothing, too.
  Cut cut = {0, width};
  const double largest = double(best.value), inverse = choice.inverseTemperature;
  if (choice.mode == 2 && choice.topK > 0 && choice.topK < width) {
    const auto one = [](int) { return u64(1); };
    cut = cutAbove(row, one, width, largest, inverse, u64(width - choice.topK), scratch);
    cut.lastToken = width;  // what equals the last one stays
  }
  u64 mine = 0;
  for (int i = first; i < width; i += step) {
    u64 weight = 0;
    if (orderedKey(row[i]) >= cut.key) {
      const double exponent = __dmul_rn(__dadd_rn(largest, -double(row[i])), inverse);
      if (exponent < negligibleExponent) {
        weight = u64(__dadd_rn(__dmul_rn(expMinus(exponent, expTable), largestWeight), 0.5));
      }
    }
    weightOf[i] = weight;
    mine += weight;
  }
  u64 total = sumOfBlock64(mine, scratch);
  const auto weightAt = [=](int i) { return weightOf[i]; };
  if (choice.mode == 2 && choice.dropShare >= 0) {
    const u64 limit = u64(__dmul_rn(choice.dropShare, double(total)));
    cut = cutAbove(row, weightAt, width, largest, inverse, limit < total ? limit : total - 1, scratch);
  }
  const double least = choice.mode == 2 ? choice.leastWeight : 0;
  const auto isKept = [=](int i) {
    const unsigned key = orderedKey(row[i]);
    return (key > cut.key || (key == cut.key && i <= cut.lastToken)) && double(weightOf[i]) >= least;
  };
  u64 kept = 0;
  mine = 0;
  for (int i = first; i < width; i += step) {
    if (!isKept(i)) continue;
    mine += weightOf[i];
    kept++;
  }
  total = sumOfBlock64(mine, scratch);
  int token = best.token;
  if (choice.mode == 2) {
    const double uniform = double(randomBits(choice.position, choice.seedLow, choice.seedHigh)) / 9007199254740992.0;
    const u64 target = u64(__dmul_rn(uniform, double(total)));
    const auto keptWeight = [=](int i) { return isKept(i) ? weightOf[i] : u64(0); };
    token = firstTokenAbove(keptWeight, width, target < total ? target : total - 1, scratch);
  }
  if (first == 0) tokens[blockIdx.x] = token;
  if (choice.numTop < 0) {
    if (first == 0) result = {token, 0, 0, 0, best.value, row[token], total};
    return;
  }

  u64 moreLikely = 0;
  for (int i = first; i < width; i += step) moreLikely += row[i] > row[token];
  const int rank = 1 + int(sumOfBlock64(moreLikely, scratch));
  const int keptTokens = int(sumOfBlock64(kept, scratch));
  if (first == 0) result = {token, 0, rank, keptTokens, best.value, row[token], total};
  Ranked last = {INFINITY, -1};
  const int numTop = choice.numTop < keptTokens ? choice.numTop : keptTokens;
  for (int n = 0; n < numTop && n < mostTop; n++) {
    Ranked next = {-INFINITY, -1};
    for (int i = first; i < width; i += step) {
      const Ranked one = {row[i], i};
      if (isKept(i) && isBefore(last, one) && (next.token < 0 || isBefore(one, next))) next = one;
    }
    last = firstOfBlock(next, scratch);
    if (first == 0) top[size_t(blockIdx.x) * mostTop + n] = {last.token, last.value};
  }
}

/// Gives rows of a step the tokens that the step before chose: sources[i] is a place in `chosen`, or -1 for a
/// row that has its token. A row whose sequence got none has token 0; nobody reads its result. Grid of 256
/// threads each.
extern "C" __global__ void __launch_bounds__(256)
    take_tokens(const int* __restrict__ chosen, const int* __restrict__ sources, int* __restrict__ tokens,
                int rows) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= rows || sources[row] < 0) return;
  const int token = chosen[sources[row]];
  tokens[row] = token < 0 ? 0 : token;
}
