/*
 * y = x W^T + bias over packed panels. Every output is one chain of fused multiply-adds over k, cut
 * into chunks of K_CHUNK whose sums are added in order. The arithmetic depends neither on the
 * number of rows nor on the tiling of rows and panels, so a row's result is the same in any batch.
 * A chunk of a group of panels stays in the second-level cache while all rows pass over it, so each
 * weight is read from memory once.
 */
#ifndef GEMM_H
#define GEMM_H

#include "pack.h"

enum { K_CHUNK = 256 };

#ifdef __AMX_BF16__
#include "gemm_amx.h"
#endif

/* Most rows of a tile. Its sums must stay in registers. */
#if LANES == 16
#define MAX_ROWS 8
#define MAX_SUMS 16
#elif LANES == 8
#define MAX_ROWS 3
#define MAX_SUMS 12
#elif defined(__wasm__)
#define MAX_ROWS 2
#define MAX_SUMS 8
#else
#define MAX_ROWS 4
#define MAX_SUMS 16
#endif
#define MAX_PANELS 2
/*
 * How far ahead weights are prefetched into the second-level cache. With few rows, loads run far
 * enough ahead by themselves and prefetches slow them down (Zen 4, 60 GB/s: 88% of the read
 * bandwidth with prefetches, 100% without). With many rows, the processor's queues are full of
 * multiplications, and prefetches help (8 rows: 39 GB/s with prefetches, 30 without).
 */
enum { PREFETCH_BYTES = 6144 };
#define MAX_GROUP_PANELS 32
/* Up to this many rows, products take as long as reading the weights takes. */
#define FEW_ROWS 16

/* How the inner product is computed; chosen by type and mode, never by shape. The last one rounds
 * x to bfloat16 for the processor's bfloat16 instructions. */
enum product { PRODUCT_FLOAT32, PRODUCT_FLOAT16, PRODUCT_BFLOAT16, PRODUCT_BFLOAT16_PAIRS };

/* The last product whose x the thread packed. */
struct packing {
  uint64_t product;
  char apart[56];
};

struct gemm {
  enum product product;
  enum storage type;
  const float *x;
  const char *weights;
  const float *bias;
  float *y;
  size_t ldx, ldy;
  int m, n, k, rounds, parts;
  char *packed_x; /* [chunks][m][K_CHUNK], float32 or bfloat16; the last chunk's tail is zero */
  /* If x is small, every thread has its own packed_x, this many bytes apart, because packing is
   * faster than moving cache lines between cores. Otherwise 0. */
  size_t own_x_bytes;
  struct packing *packings; /* of each thread */
  uint64_t number; /* of this product, never 0 */
  float *tail; /* [m][16]: y of the last panel, if n does not fill it */
};

#ifdef __AVX512BF16__
enum { HAS_PAIRS = 1 };
#else
enum { HAS_PAIRS = 0 };
#endif

INLINE enum product product_of(enum storage type, int rounds) {
  if (type == FLOAT32) return PRODUCT_FLOAT32;
  if (type == FLOAT16) return PRODUCT_FLOAT16;
  return rounds && HAS_PAIRS ? PRODUCT_BFLOAT16_PAIRS : PRODUCT_BFLOAT16;
}

/* Near-equal blocks of at most MAX_ROWS rows, and how many panels they are multiplied by at once. */
INLINE int blocks_of(int m) { return (m + MAX_ROWS - 1) / MAX_ROWS; }
INLINE int panels_at_once(int m) {
  int rows = (m + blocks_of(m) - 1) / blocks_of(m);
  return rows * MAX_PANELS * VECTORS <= MAX_SUMS ? MAX_PANELS : 1;
}
INLINE int chunks_of(int k) { return (padded_k(k) + K_CHUNK - 1) / K_CHUNK; }
INLINE size_t packed_x_element(enum product product) {
  return product == PRODUCT_BFLOAT16_PAIRS ? 2 : 4;
}

/* Copies the row `task` of x into its chunks, rounded as the product needs it. */
static void pack_x_row(void *job, int task, int thread) {
  const struct gemm *g = job;
  const float *x = g->x + (size_t)task * g->ldx;
  size_t element = packed_x_element(g->product);
  for (int chunk = 0; chunk < chunks_of(g->k); chunk++) {
    char *out = g->packed_x + ((size_t)chunk * g->m + task) * K_CHUNK * element;
    int begin = chunk * K_CHUNK, end = begin + K_CHUNK, i = begin;
    int valid = end < g->k ? end : g->k, padded = end < padded_k(g->k) ? end : padded_k(g->k);
    for (; i + LANES <= valid; i += LANES) {
      vfloat v = load(x + i);
#ifdef __AVX512BF16__
      if (g->product == PRODUCT_BFLOAT16_PAIRS) {
        vuint bits = round_to_bf16_bits(v) >> 16;
        _mm256_storeu_si256((__m256i *)(out + (i - begin) * element),
                            _mm512_cvtepi32_epi16((__m512i)bits));
        continue;
      }
#endif
      store((float *)out + (i - begin), g->rounds ? round_to_bf16(v) : v);
    }
    for (; i < padded; i++) {
      float value = i < valid ? x[i] : 0.0f;
      uint16_t half = float_to_bf16(value);
      if (element == 2) ((uint16_t *)out)[i - begin] = half;
      else ((float *)out)[i - begin] = g->rounds ? bf16_to_float(half) : value;
    }
  }
}

/* One chunk of `rows` rows times `panels` panels of a pair. */
struct tile {
  const char *x, *weights;
  int k;
  float *y;
  size_t ldy;
  int first; /* chunk: starts y, else adds to it */
  const float *bias; /* added after the last chunk */
};

INLINE void multiply_tile(int rows, int panels, enum product product, const struct tile *t) {
  const int width = panels * VECTORS;
  vfloat sums[MAX_SUMS];
  UNROLL for (int i = 0; i < rows * width; i++) sums[i] = splat(0);
  const float *x = (const float *)t->x;
  const char *weights = t->weights;
  const size_t element = product == PRODUCT_FLOAT32 ? 4 : 2;
  const size_t step = 2 * PANEL * element;
  for (int k = 0; k < t->k; k += 2, weights += 2 * step, x += 2) {
#if !defined(__wasm__)
    UNROLL for (int p = 0; p < panels; p++) {
      const char *ahead = weights + p * step + PREFETCH_BYTES;
      if (rows > 1) __builtin_prefetch(ahead, 0, 2);
      if (rows > 1 && product == PRODUCT_FLOAT32) __builtin_prefetch(ahead + 64, 0, 2);
    }
#endif
    UNROLL for (int p = 0; p < panels; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
      const char *w = weights + p * step;
      vfloat even, odd;
      if (product == PRODUCT_BFLOAT16) {
        vuint pair = load_bits(w + (size_t)v * LANES * 4);
        even = (vfloat)(pair << 16);
        odd = (vfloat)(pair & 0xffff0000u);
      } else {
        enum storage type = product == PRODUCT_FLOAT32 ? FLOAT32 : FLOAT16;
        even = load_as_float(type, w + (size_t)v * LANES * element);
        odd = load_as_float(type, w + (PANEL + (size_t)v * LANES) * element);
      }
      UNROLL for (int r = 0; r < rows; r++) {
        vfloat *sum = &sums[r * width + p * VECTORS + v];
        *sum = vfma(even, splat(x[r * K_CHUNK]), *sum);
        *sum = vfma(odd, splat(x[r * K_CHUNK + 1]), *sum);
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int i = 0; i < width; i++) {
    float *y = t->y + r * t->ldy + i * LANES;
    vfloat sum = sums[r * width + i];
    if (!t->first) sum = load(y) + sum;
    if (t->bias) sum = sum + load(t->bias + i * LANES);
    store(y, sum);
  }
}

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
INLINE void multiply_pairs_tile(int rows, int panels, const struct tile *t) {
  vfloat sums[MAX_ROWS * MAX_PANELS];
  UNROLL for (int i = 0; i < rows * panels; i++) sums[i] = splat(0);
  const char *x = t->x, *weights = t->weights;
  const size_t step = 4 * PANEL;
  for (int k = 0; k < t->k; k += 2, weights += 2 * step, x += 4) {
    __m512bh w[MAX_PANELS];
    UNROLL for (int p = 0; p < panels; p++) {
      if (rows > 4) __builtin_prefetch(weights + p * step + PREFETCH_BYTES, 0, 2);
      w[p] = (__m512bh)_mm512_loadu_si512(weights + p * step);
    }
    UNROLL for (int r = 0; r < rows; r++) {
      __m512bh pair = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(x + r * K_CHUNK * 2));
      UNROLL for (int p = 0; p < panels; p++) {
        vfloat *sum = &sums[r * panels + p];
        *sum = (vfloat)_mm512_dpbf16_ps((__m512)*sum, w[p], pair);
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int p = 0; p < panels; p++) {
    float *y = t->y + r * t->ldy + p * PANEL;
    vfloat sum = sums[r * panels + p];
    if (!t->first) sum = load(y) + sum;
    if (t->bias) sum = sum + load(t->bias + p * PANEL);
    store(y, sum);
  }
}
#endif

/* The cases of a switch over tile shapes; shapes with too many sums never occur. */
#define TILE_CASE(rows, panels) \
  case (rows) * 4 + (panels): \
    if ((rows) * (panels) * VECTORS <= MAX_SUMS) MULTIPLY(rows, panels); \
    break;
#if MAX_ROWS == 8
#define TILE_CASES(panels) \
  TILE_CASE(1, panels) TILE_CASE(2, panels) TILE_CASE(3, panels) TILE_CASE(4, panels) \
  TILE_CASE(5, panels) TILE_CASE(6, panels) TILE_CASE(7, panels) TILE_CASE(8, panels)
#elif MAX_ROWS == 3
#define TILE_CASES(panels) TILE_CASE(1, panels) TILE_CASE(2, panels) TILE_CASE(3, panels)
#elif MAX_ROWS == 4
#define TILE_CASES(panels) \
  TILE_CASE(1, panels) TILE_CASE(2, panels) TILE_CASE(3, panels) TILE_CASE(4, panels)
#else
#define TILE_CASES(panels) TILE_CASE(1, panels) TILE_CASE(2, panels)
#endif

#define MULTIPLY(rows, panels) multiply_tile(rows, panels, PRODUCT_FLOAT32, t)
static void multiply_float32(int shape, const struct tile *t) {
  switch (shape) { TILE_CASES(1) TILE_CASES(2) }
}
#undef MULTIPLY
#define MULTIPLY(rows, panels) multiply_tile(rows, panels, PRODUCT_FLOAT16, t)
static void multiply_float16(int shape, const struct tile *t) {
  switch (shape) { TILE_CASES(1) TILE_CASES(2) }
}
#undef MULTIPLY
#define MULTIPLY(rows, panels) multiply_tile(rows, panels, PRODUCT_BFLOAT16, t)
static void multiply_bfloat16(int shape, const struct tile *t) {
  switch (shape) { TILE_CASES(1) TILE_CASES(2) }
}
#undef MULTIPLY
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define MULTIPLY(rows, panels) multiply_pairs_tile(rows, panels, t)
static void multiply_bfloat16_pairs(int shape, const struct tile *t) {
  switch (shape) { TILE_CASES(1) TILE_CASES(2) }
}
#undef MULTIPLY
#endif

INLINE void multiply(enum product product, int rows, int panels, const struct tile *t) {
  int shape = rows * 4 + panels;
  switch (product) {
    case PRODUCT_FLOAT32: multiply_float32(shape, t); break;
    case PRODUCT_FLOAT16: multiply_float16(shape, t); break;
    case PRODUCT_BFLOAT16: multiply_bfloat16(shape, t); break;
    case PRODUCT_BFLOAT16_PAIRS:
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
      multiply_bfloat16_pairs(shape, t);
#endif
      break;
  }
}

/*
 * All m rows by `panels` panels from `panel` on, into y (leading dimension ldy) at its column 0. A
 * block of rows stays in the first-level cache while a chunk of all panels passes over it.
 */
static void multiply_panels(const struct gemm *g, int panel, int panels, float *y, size_t ldy,
                            const float *bias) {
  int chunks = chunks_of(g->k), blocks = blocks_of(g->m), width = panels_at_once(g->m);
  size_t row_bytes = K_CHUNK * packed_x_element(g->product);
  size_t chunk_bytes = K_CHUNK * step_bytes(g->type);
  struct tile t = {.ldy = ldy};
  for (int chunk = 0; chunk < chunks; chunk++) {
    int rest = padded_k(g->k) - chunk * K_CHUNK;
    t.k = rest < K_CHUNK ? rest : K_CHUNK;
    t.first = chunk == 0;
    for (int block = 0; block < blocks; block++) {
      int row = part_start(g->m, block, blocks);
      int rows = part_start(g->m, block + 1, blocks) - row;
      t.x = g->packed_x + ((size_t)chunk * g->m + row) * row_bytes;
      for (int i = 0; i < panels; i += width) {
        t.weights = panel_at(g->weights, g->type, panel + i, g->k) + chunk * chunk_bytes;
        t.y = y + (size_t)row * ldy + i * PANEL;
        t.bias = bias && chunk == chunks - 1 ? bias + i * PANEL : NULL;
        multiply(g->product, rows, panels - i < width ? panels - i : width, &t);
      }
    }
  }
}

#ifdef __AMX_BF16__
/* The same on AMX tiles. */
static void multiply_panels_tiled(const struct gemm *g, int panel, int panels, float *y, size_t ldy,
                                  const float *bias) {
  for (int i = 0; i < panels; i += 2) {
    const char *weights = panel_at(g->weights, g->type, panel + i, g->k);
    multiply_panels_amx(g->packed_x, g->m, weights, padded_k(g->k),
                        panels - i < 2 ? 1 : 2, y + i * PANEL, ldy);
  }
  for (int row = 0; bias && row < g->m; row++) add_to(y + row * ldy, bias, panels * PANEL);
}
#endif

INLINE void multiply_group(const struct gemm *g, int panel, int panels, float *y, size_t ldy,
                           const float *bias) {
#ifdef __AMX_BF16__
  if (g->product == PRODUCT_BFLOAT16_PAIRS) {
    multiply_panels_tiled(g, panel, panels, y, ldy, bias);
    return;
  }
#endif
  multiply_panels(g, panel, panels, y, ldy, bias);
}

static void multiply_tail_panel(const struct gemm *g, int panel) {
  int columns = g->n - panel * PANEL;
  float bias[PANEL] = {0};
  for (int i = 0; g->bias && i < columns; i++) bias[i] = g->bias[panel * PANEL + i];
  multiply_group(g, panel, 1, g->tail, PANEL, g->bias ? bias : NULL);
  for (int row = 0; row < g->m; row++) {
    float *y = g->y + (size_t)row * g->ldy + panel * PANEL;
    for (int i = 0; i < columns; i++) y[i] = g->tail[(size_t)row * PANEL + i];
  }
}

static void pack_own_x(struct gemm *g, int thread) {
  g->packed_x += thread * g->own_x_bytes;
  if (g->packings[thread].product == g->number) return;
  for (int row = 0; row < g->m; row++) pack_x_row(g, row, thread);
  g->packings[thread].product = g->number;
}

static void multiply_part(void *job, int task, int thread) {
  struct gemm own = *(const struct gemm *)job, *g = &own;
  if (g->own_x_bytes) pack_own_x(g, thread);
  int panel = first_panel(g->n, task, g->parts), end = first_panel(g->n, task + 1, g->parts);
  int full = g->n / PANEL < end ? g->n / PANEL : end;
#ifdef __AMX_BF16__
  configure_tiles(g->m < TILE_ROWS ? g->m : TILE_ROWS);
#endif
  /* Few rows stay in the cache anyway; then it is fastest to read the weights in memory order. */
  int group = g->m <= FEW_ROWS ? panels_at_once(g->m) : MAX_GROUP_PANELS;
  while (panel < full) {
    int panels = full - panel < group ? full - panel : group;
    const float *bias = g->bias ? g->bias + panel * PANEL : NULL;
    multiply_group(g, panel, panels, g->y + panel * PANEL, g->ldy, bias);
    panel += panels;
  }
  if (panel < end) multiply_tail_panel(g, panel);
#ifdef __AMX_BF16__
  _tile_release();
#endif
}

INLINE int packs_own_x(int m, int k) { return (int64_t)m * k < 16384; }
/* Bytes of one packed x; a multiple of 64, like all parts of the scratch memory. */
INLINE size_t packed_x_bytes(enum product product, int m, int k) {
  return (size_t)m * chunks_of(k) * K_CHUNK * packed_x_element(product);
}
INLINE size_t gemm_scratch_bytes(enum product product, int m, int k, int threads) {
  size_t tail_bytes = (size_t)m * PANEL * sizeof(float);
  return tail_bytes + packed_x_bytes(product, m, k) * (packs_own_x(m, k) ? threads : 1);
}

static void run_gemm(struct pool *pool, struct gemm *g, char *scratch) {
  g->tail = (float *)scratch;
  g->packed_x = scratch + (size_t)g->m * PANEL * sizeof(float);
  if (packs_own_x(g->m, g->k)) g->own_x_bytes = packed_x_bytes(g->product, g->m, g->k);
  else run_job(pool, pack_x_row, g, g->m);
  g->parts = parts_of(g->n, pool->threads);
  run_job(pool, multiply_part, g, g->parts);
}

#endif
