/*
 * Causal attention over the paged cache.
 *
 * A context is cut into partitions of PARTITION tokens at fixed places. Each partition of a row
 * (one query token and head) yields its largest score, the sum of exponentials and the weighted sum
 * of values; partitions are merged in order. So a row's arithmetic depends on its own context
 * alone, and long contexts can still be spread over threads. Rows that read the same keys are
 * computed together, in a tile of at most MAX_TILE_ROWS.
 */
#ifndef ATTENTION_H
#define ATTENTION_H

#include "cache.h"

enum { PARTITION = 512, MAX_HEAD_DIM = 256 };
/*
 * How far ahead keys and values are prefetched, line by line: all keys of a partition, then its
 * values, then the keys of the next one. The processor's own prefetcher cannot do it: blocks are
 * too short and too far apart.
 */
enum { TOKENS_AHEAD = 4 * PANEL };
/* SCORE_CHAINS: independent sums per score, so that additions do not wait for each other. */
#if LANES == 16
#define MAX_TILE_ROWS 8
#define SCORE_CHAINS 2
#elif defined(__wasm__)
#define MAX_TILE_ROWS 2
#define SCORE_CHAINS 1
#else
#define MAX_TILE_ROWS 4
#define SCORE_CHAINS 1
#endif

struct attention {
  struct cache cache;
  const float *q;
  float *out;
  size_t ldq, ldo;
  int heads, sequences, max_blocks, partitions, tiles; /* partitions: of the longest context */
  const int32_t *query_starts, *context_lens, *block_tables;
  float scale;
  float *partials; /* [tiles][partitions][MAX_TILE_ROWS][partial_floats], when spread */
};

/* Result of one partition, or of several merged, for a row: max, sum, values [head_dim]. */
struct partial {
  float *max, *sum, *values;
};

INLINE size_t partial_floats(int head_dim) { return (size_t)head_dim + 16; }

/* Query rows of one sequence that share a KV head. */
struct query_tile {
  int rows, kv_head;
  const int32_t *blocks; /* the sequence's block table */
  const float *q[MAX_TILE_ROWS];
  float *out[MAX_TILE_ROWS];
  int context[MAX_TILE_ROWS]; /* tokens that the row attends to */
  int max_context;
  const char *after[TOKENS_AHEAD / PANEL]; /* keys that the thread will probably read next */
};

INLINE int tiles_of_sequence(const struct attention *a, int sequence) {
  int queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
  int rows = queries * (a->heads / a->cache.kv_heads);
  return (rows + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS * a->cache.kv_heads;
}

static int count_tiles(const struct attention *a) {
  int tiles = 0;
  for (int s = 0; s < a->sequences; s++) tiles += tiles_of_sequence(a, s);
  return tiles;
}

static void find_tile(const struct attention *a, int index, struct query_tile *t) {
  int sequence = 0, tiles, group = a->heads / a->cache.kv_heads;
  for (; index >= (tiles = tiles_of_sequence(a, sequence)); sequence++) index -= tiles;
  int start = a->query_starts[sequence], queries = a->query_starts[sequence + 1] - start;
  int first = index / a->cache.kv_heads * MAX_TILE_ROWS, rest = queries * group - first;
  t->rows = rest < MAX_TILE_ROWS ? rest : MAX_TILE_ROWS;
  t->kv_head = index % a->cache.kv_heads;
  t->blocks = a->block_tables + (size_t)sequence * a->max_blocks;
  t->max_context = 0;
  for (int r = 0; r < t->rows; r++) {
    int query = (first + r) / group, head = t->kv_head * group + (first + r) % group;
    size_t column = (size_t)head * a->cache.head_dim;
    t->q[r] = a->q + (size_t)(start + query) * a->ldq + column;
    t->out[r] = a->out + (size_t)(start + query) * a->ldo + column;
    t->context[r] = a->context_lens[sequence] - queries + query + 1;
    if (t->context[r] > t->max_context) t->max_context = t->context[r];
  }
}

/* The keys of the next tile. */
static void find_after(const struct attention *a, int index, struct query_tile *t) {
  struct query_tile next = *t;
  if (index + 1 < a->tiles) find_tile(a, index + 1, &next);
  for (int i = 0; i < TOKENS_AHEAD / PANEL; i++) {
    int block = i * PANEL < next.max_context ? i * PANEL / a->cache.block_size : 0;
    t->after[i] = keys_of(&a->cache, next.blocks[block], next.kv_head);
  }
}

/*
 * Scores of 16 tokens: keys at low (eight tokens) and high, [head_dim] rows of block_size. `ahead`
 * is as long, and prefetched because it is needed soon.
 */
INLINE void score_tokens(int rows, enum storage type, int split, const char *low, const char *high,
                         const char *ahead, size_t stride, int head_dim, const float *const *q,
                         float scale, float *scores) {
  const int width = rows * VECTORS;
  vfloat sums[SCORE_CHAINS * MAX_TILE_ROWS * VECTORS], keys[VECTORS];
  UNROLL for (int i = 0; i < SCORE_CHAINS * width; i++) sums[i] = splat(0);
  for (int d = 0; d < head_dim; d += SCORE_CHAINS) {
#if !defined(__wasm__)
    __builtin_prefetch(ahead + d * stride, 0, 2);
#endif
    UNROLL for (int chain = 0; chain < SCORE_CHAINS; chain++, low += stride, high += stride) {
      if (split) {
        load_two_eights(type, low, high, keys);
      } else {
        UNROLL for (int v = 0; v < VECTORS; v++) {
          keys[v] = load_as_float(type, low + v * LANES * storage_bytes(type));
        }
      }
      UNROLL for (int r = 0; r < rows; r++) {
        vfloat query = splat(q[r][d + chain]);
        UNROLL for (int v = 0; v < VECTORS; v++) {
          vfloat *sum = &sums[chain * width + r * VECTORS + v];
          *sum = vfma(keys[v], query, *sum);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS; v++) {
    vfloat sum = sums[r * VECTORS + v];
    UNROLL for (int chain = 1; chain < SCORE_CHAINS; chain++) {
      sum = sum + sums[chain * width + r * VECTORS + v];
    }
    store(scores + r * PARTITION + v * LANES, sum * splat(scale));
  }
}

/* Keys of the tokens from `token` on, and the values of the block that it is in. */
INLINE const char *keys_at(enum storage type, const struct cache *c, const struct query_tile *t,
                           int token) {
  const char *keys = keys_of(c, t->blocks[token / c->block_size], t->kv_head);
  return keys + token % c->block_size * storage_bytes(type);
}
INLINE const char *values_at(const struct cache *c, const struct query_tile *t, int token) {
  return values_of(c, t->blocks[token / c->block_size], t->kv_head);
}

INLINE void score_partition(int rows, enum storage type, const struct attention *a,
                            const struct query_tile *t, int begin, int end, float *scores) {
  const struct cache *c = &a->cache;
  size_t stride = c->block_size * storage_bytes(type);
  int padded = begin + (end - begin + PANEL - 1) / PANEL * PANEL;
  for (int token = begin; token < end; token += PANEL) {
    float *out = scores + (token - begin);
    const char *low = keys_at(type, c, t, token), *high = low, *ahead = low;
    int next = token + TOKENS_AHEAD, over = begin + next - padded;
    if (next < end) ahead = keys_at(type, c, t, next);
    else if (over < end) ahead = values_at(c, t, over);
    if (c->block_size == 8) {
      if (token + 8 < end) high = keys_at(type, c, t, token + 8);
      score_tokens(rows, type, 1, low, high, ahead, stride, c->head_dim, t->q, a->scale, out);
    } else {
      score_tokens(rows, type, 0, low, low, ahead, stride, c->head_dim, t->q, a->scale, out);
    }
  }
}

/* Turns a row's first `visible` of `count` scores into exponentials, the others into zeros. */
static void exponentials(float *scores, int visible, int count, float *max, float *sum) {
  int padded = (count + PANEL - 1) / PANEL * PANEL;
  for (int i = visible > 0 ? visible : 0; i < padded; i++) scores[i] = -3.0e38f;
  vfloat most = splat(-3.0e38f), total = splat(0);
  for (int i = 0; i < padded; i += LANES) most = vmax(load(scores + i), most);
  *max = max_lanes(most);
  for (int i = 0; i < padded; i += LANES) {
    store(scores + i, vexp(load(scores + i) - splat(*max)));
  }
  for (int i = visible > 0 ? visible : 0; i < padded; i++) scores[i] = 0;
  for (int i = 0; i < padded; i += LANES) total = total + load(scores + i);
  *sum = sum_lanes(total);
}

/* What to prefetch when `token` is next: values of the partition up to `end`, then keys. */
INLINE const char *after_values(enum storage type, const struct cache *c,
                                const struct query_tile *t, int token, int end) {
  if (token < end) return values_at(c, t, token);
  if (token < t->max_context) return keys_at(type, c, t, token);
  return t->after[(token - end) / PANEL % (TOKENS_AHEAD / PANEL)];
}

/* values[r][column ...] = sum over the partition's tokens of weight times value; `width` vectors. */
INLINE void weigh_columns(int rows, int width, enum storage type, const struct attention *a,
                          const struct query_tile *t, int begin, int end, const float *weights,
                          int column, float *const *values) {
  const struct cache *c = &a->cache;
  size_t element = storage_bytes(type), row_bytes = c->head_dim * element;
  vfloat sums[MAX_TILE_ROWS * 2], value[2];
  UNROLL for (int i = 0; i < rows * width; i++) sums[i] = splat(0);
  for (int token = begin; token < end; token += c->block_size) {
    const char *v = values_at(c, t, token) + column * element;
    const char *ahead = after_values(type, c, t, token + TOKENS_AHEAD, end) + column * element;
    int count = end - token < c->block_size ? end - token : c->block_size;
    for (int i = 0; i < count; i++, v += row_bytes, ahead += row_bytes) {
#if !defined(__wasm__)
      __builtin_prefetch(ahead, 0, 2);
#endif
      UNROLL for (int j = 0; j < width; j++) {
        value[j] = load_as_float(type, v + j * LANES * element);
      }
      UNROLL for (int r = 0; r < rows; r++) {
        vfloat weight = splat(weights[r * PARTITION + token - begin + i]);
        UNROLL for (int j = 0; j < width; j++) {
          sums[r * width + j] = vfma(value[j], weight, sums[r * width + j]);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < width; j++) {
    store(values[r] + column + j * LANES, sums[r * width + j]);
  }
}

/* Columns that do not fill a vector, one by one in the same order. */
static void weigh_column(enum storage type, const struct attention *a, const struct query_tile *t,
                         int begin, int end, const float *weights, int column,
                         float *const *values) {
  const struct cache *c = &a->cache;
  for (int r = 0; r < t->rows; r++) {
    float sum = 0;
    for (int token = begin; token < end; token++) {
      const char *v = values_of(c, t->blocks[token / c->block_size], t->kv_head);
      size_t at = (size_t)(token % c->block_size) * c->head_dim + column;
      sum = vfma(splat(stored_to_float(type, v, at)),
                splat(weights[r * PARTITION + token - begin]), splat(sum))[0];
    }
    values[r][column] = sum;
  }
}

INLINE void attend_rows(int rows, enum storage type, const struct attention *a,
                        const struct query_tile *t, int begin, int end,
                        const struct partial *partials) {
  float weights[MAX_TILE_ROWS * PARTITION];
  float *values[MAX_TILE_ROWS];
  score_partition(rows, type, a, t, begin, end, weights);
  for (int r = 0; r < rows; r++) {
    values[r] = partials[r].values;
    exponentials(weights + r * PARTITION, t->context[r] - begin, end - begin, partials[r].max,
                 partials[r].sum);
  }
  int column = 0, head_dim = a->cache.head_dim;
  for (; column + 2 * LANES <= head_dim; column += 2 * LANES) {
    weigh_columns(rows, 2, type, a, t, begin, end, weights, column, values);
  }
  for (; column + LANES <= head_dim; column += LANES) {
    weigh_columns(rows, 1, type, a, t, begin, end, weights, column, values);
  }
  for (; column < head_dim; column++) {
    weigh_column(type, a, t, begin, end, weights, column, values);
  }
}

#define ATTEND_CASE(rows, type) \
  case rows: attend_rows(rows, type, a, t, begin, end, partials); break;
#if MAX_TILE_ROWS == 8
#define ATTEND_CASES(type) \
  ATTEND_CASE(1, type) ATTEND_CASE(2, type) ATTEND_CASE(3, type) ATTEND_CASE(4, type) \
  ATTEND_CASE(5, type) ATTEND_CASE(6, type) ATTEND_CASE(7, type) ATTEND_CASE(8, type)
#elif MAX_TILE_ROWS == 2
#define ATTEND_CASES(type) ATTEND_CASE(1, type) ATTEND_CASE(2, type)
#else
#define ATTEND_CASES(type) \
  ATTEND_CASE(1, type) ATTEND_CASE(2, type) ATTEND_CASE(3, type) ATTEND_CASE(4, type)
#endif
#define ATTEND(name, type) \
  static void name(const struct attention *a, const struct query_tile *t, int begin, int end, \
                   const struct partial *partials) { \
    switch (t->rows) { ATTEND_CASES(type) } \
  }
ATTEND(attend_float32, FLOAT32)
ATTEND(attend_float16, FLOAT16)
ATTEND(attend_bfloat16, BFLOAT16)

/* Partition number `partition` of all rows of the tile. */
static void attend(const struct attention *a, const struct query_tile *t, int partition,
                   const struct partial *partials) {
  int begin = partition * PARTITION, end = begin + PARTITION;
  if (end > t->max_context) end = t->max_context;
  if (a->cache.type == FLOAT32) attend_float32(a, t, begin, end, partials);
  else if (a->cache.type == FLOAT16) attend_float16(a, t, begin, end, partials);
  else attend_bfloat16(a, t, begin, end, partials);
}

/* Merges `next` into `all`. */
static void merge(const struct partial *all, const struct partial *next, int head_dim) {
  float max = *all->max > *next->max ? *all->max : *next->max;
  float keep = vexp(splat(*all->max - max))[0], take = vexp(splat(*next->max - max))[0];
  *all->max = max;
  *all->sum = *all->sum * keep + *next->sum * take;
  int i = 0;
  for (; i + LANES <= head_dim; i += LANES) {
    vfloat kept = load(all->values + i) * splat(keep);
    store(all->values + i, vfma(load(next->values + i), splat(take), kept));
  }
  for (; i < head_dim; i++) {
    all->values[i] = vfma(splat(next->values[i]), splat(take), splat(all->values[i] * keep))[0];
  }
}

static void finish_row(const struct partial *all, float *out, int head_dim) {
  float scale = 1.0f / *all->sum;
  for (int i = 0; i < head_dim; i++) out[i] = all->values[i] * scale;
}

INLINE struct partial partial_at(float *memory) {
  return (struct partial){memory, memory + 1, memory + 16};
}

/* Computes a whole tile, partition after partition. */
static void attend_tile(void *job, int task, int thread) {
  const struct attention *a = job;
  float memory[2][MAX_TILE_ROWS][MAX_HEAD_DIM + 16];
  struct partial all[MAX_TILE_ROWS], next[MAX_TILE_ROWS];
  struct query_tile t;
  find_tile(a, task, &t);
  find_after(a, task, &t);
  for (int r = 0; r < t.rows; r++) {
    all[r] = partial_at(memory[0][r]);
    next[r] = partial_at(memory[1][r]);
  }
  attend(a, &t, 0, all);
  for (int partition = 1; partition * PARTITION < t.max_context; partition++) {
    attend(a, &t, partition, next);
    for (int r = 0; r < t.rows; r++) {
      if (t.context[r] > partition * PARTITION) merge(&all[r], &next[r], a->cache.head_dim);
    }
  }
  for (int r = 0; r < t.rows; r++) finish_row(&all[r], t.out[r], a->cache.head_dim);
}

INLINE float *spread_partial(const struct attention *a, int tile, int partition) {
  size_t floats = MAX_TILE_ROWS * partial_floats(a->cache.head_dim);
  return a->partials + ((size_t)tile * a->partitions + partition) * floats;
}

/* Computes one partition of one tile, for few tiles with long contexts. */
static void attend_spread(void *job, int task, int thread) {
  const struct attention *a = job;
  int tile = task / a->partitions, partition = task % a->partitions;
  struct query_tile t;
  find_tile(a, tile, &t);
  if (partition * PARTITION >= t.max_context) return;
  for (int i = 0; i < TOKENS_AHEAD / PANEL; i++) t.after[i] = keys_of(&a->cache, t.blocks[0], 0);
  struct partial partials[MAX_TILE_ROWS];
  for (int r = 0; r < t.rows; r++) {
    size_t offset = r * partial_floats(a->cache.head_dim);
    partials[r] = partial_at(spread_partial(a, tile, partition) + offset);
  }
  attend(a, &t, partition, partials);
}

static void merge_spread(void *job, int task, int thread) {
  const struct attention *a = job;
  int head_dim = a->cache.head_dim;
  struct query_tile t;
  find_tile(a, task, &t);
  for (int r = 0; r < t.rows; r++) {
    size_t offset = r * partial_floats(head_dim);
    struct partial all = partial_at(spread_partial(a, task, 0) + offset);
    for (int partition = 1; partition * PARTITION < t.context[r]; partition++) {
      struct partial next = partial_at(spread_partial(a, task, partition) + offset);
      merge(&all, &next, head_dim);
    }
    finish_row(&all, t.out[r], head_dim);
  }
}

/* Whether tiles are too few to keep the threads busy, so that partitions become tasks instead. */
INLINE int spreads(const struct attention *a, int tiles, int threads) {
  return threads > 1 && a->partitions > 1 && tiles < 4 * threads;
}

INLINE size_t attention_scratch_bytes(const struct attention *a, int tiles, int threads) {
  if (!spreads(a, tiles, threads)) return 0;
  size_t row_bytes = partial_floats(a->cache.head_dim) * sizeof(float);
  return (size_t)tiles * a->partitions * MAX_TILE_ROWS * row_bytes;
}

static void run_attention(struct pool *pool, struct attention *a, int tiles, char *scratch) {
  a->tiles = tiles;
  if (!spreads(a, tiles, pool->threads)) {
    run_job(pool, attend_tile, a, tiles);
    return;
  }
  a->partials = (float *)scratch;
  run_job(pool, attend_spread, a, tiles * a->partitions);
  for (int tile = 0; tile < tiles; tile++) merge_spread(a, tile, 0);
}

#endif
