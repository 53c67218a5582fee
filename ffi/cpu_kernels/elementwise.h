/* Operations on rows of activations. A task is a group of rows. */
#ifndef ELEMENTWISE_H
#define ELEMENTWISE_H

#include "pack.h"

struct rows {
  float *x;
  const float *other, *weight;
  float *y;
  size_t ldx;
  int m, k, heads, rows_per_task;
  float eps;
  const int32_t *ids;
  const char *table;
  enum storage type;
};

typedef void (*row_function)(const struct rows *r, int row);

/* y = x / sqrt(mean(x^2) + eps) * weight. y may be x. */
INLINE void normalize(const float *x, const float *weight, float *y, int k, float eps) {
  vfloat squares = splat(0);
  int i = 0;
  for (; i + LANES <= k; i += LANES) {
    vfloat v = load(x + i);
    squares = vfma(v, v, squares);
  }
  float sum = sum_lanes(squares);
  for (int j = i; j < k; j++) sum += x[j] * x[j];
  float scale = 1.0f / vsqrt(splat(sum / (float)k + eps))[0];
  for (i = 0; i + LANES <= k; i += LANES) {
    store(y + i, load(x + i) * splat(scale) * load(weight + i));
  }
  for (; i < k; i++) y[i] = x[i] * scale * weight[i];
}

static void rmsnorm_row(const struct rows *r, int row) {
  size_t at = (size_t)row * r->k;
  if (r->other) add_to(r->x + at, r->other + at, r->k);
  normalize(r->x + at, r->weight, r->y + at, r->k, r->eps);
}

static void head_rmsnorm_row(const struct rows *r, int row) {
  for (int head = 0; head < r->heads; head++) {
    float *x = r->x + (size_t)row * r->ldx + (size_t)head * r->k;
    normalize(x, r->weight, x, r->k, r->eps);
  }
}

/* k is the head dimension; weight the table [positions, k], ids the positions. */
static void rope_row(const struct rows *r, int row) {
  int half = r->k / 2;
  const float *cosine = r->weight + (size_t)r->ids[row] * r->k, *sine = cosine + half;
  for (int head = 0; head < r->heads; head++) {
    float *low = r->x + (size_t)row * r->ldx + (size_t)head * r->k, *high = low + half;
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
      vfloat a = load(low + i), b = load(high + i), c = load(cosine + i), s = load(sine + i);
      store(low + i, a * c - b * s);
      store(high + i, b * c + a * s);
    }
    for (; i < half; i++) {
      float a = low[i], b = high[i];
      low[i] = a * cosine[i] - b * sine[i];
      high[i] = b * cosine[i] + a * sine[i];
    }
  }
}

/* x [m, 2k] = gate | up; y = gate / (1 + e^-gate) * up. */
static void silu_mul_row(const struct rows *r, int row) {
  const float *gate = r->x + (size_t)row * 2 * r->k, *up = gate + r->k;
  float *y = r->y + (size_t)row * r->k;
  int i = 0;
  for (; i + LANES <= r->k; i += LANES) {
    vfloat g = load(gate + i);
    store(y + i, g / (splat(1) + vexp(-g)) * load(up + i));
  }
  for (; i < r->k; i++) y[i] = gate[i] / (1 + vexp(splat(-gate[i]))[0]) * up[i];
}

static void embed_row(const struct rows *r, int row) {
  int id = r->ids[row];
  const char *panel = panel_at(r->table, r->type, id / PANEL, r->k);
  float *y = r->y + (size_t)row * r->k;
  for (int i = 0; i < r->k; i++) {
    y[i] = stored_to_float(r->type, panel, panel_index(r->type, id % PANEL, i));
  }
}

#define ROWS_TASK(name) \
  static void name##_rows(void *job, int task, int thread) { \
    const struct rows *r = job; \
    int end = (task + 1) * r->rows_per_task < r->m ? (task + 1) * r->rows_per_task : r->m; \
    for (int row = task * r->rows_per_task; row < end; row++) name##_row(r, row); \
  }
ROWS_TASK(rmsnorm)
ROWS_TASK(head_rmsnorm)
ROWS_TASK(rope)
ROWS_TASK(silu_mul)
ROWS_TASK(embed)

/* Below about 8192 elements, handing a task to another thread costs more than it saves. */
static void run_rows(struct pool *pool, task_function run, struct rows *r, int64_t row_elements) {
  int64_t per_task = 8192 / (row_elements > 0 ? row_elements : 1) + 1;
  r->rows_per_task = (int)(per_task < r->m ? per_task : r->m);
  if (r->m > 0) run_job(pool, run, r, (r->m + r->rows_per_task - 1) / r->rows_per_task);
}

/*
 * The largest value of a row, or of a part of it, and its index: the lowest index on ties, the
 * first if all values are -infinity, and NOT_A_NUMBER if any value is NaN.
 */
enum { NOT_A_NUMBER = -1 };
struct best {
  float value;
  int32_t index;
};

struct argmax {
  const float *x;
  size_t ldx;
  int m, k, parts;
  struct best *bests; /* [parts][m] */
};

INLINE struct best best_between(const float *x, int begin, int end) {
  vfloat most = splat(-__builtin_inff());
  vint at, lanes, unordered = {0};
  UNROLL for (int i = 0; i < LANES; i++) lanes[i] = begin + i;
  at = lanes;
  int i = begin;
  for (; i + LANES <= end; i += LANES, lanes += LANES) {
    vfloat v = load(x + i);
    vint larger = v > most;
    unordered |= v != v;
    most = (vfloat)(((vint)v & larger) | ((vint)most & ~larger));
    at = (lanes & larger) | (at & ~larger);
  }
  struct best best = {-__builtin_inff(), begin};
  for (int lane = 0; lane < LANES; lane++) {
    if (most[lane] > best.value || (most[lane] == best.value && at[lane] < best.index)) {
      best = (struct best){most[lane], at[lane]};
    }
  }
  for (; i < end; i++) {
    if (x[i] > best.value) best = (struct best){x[i], i};
    unordered[0] |= -(x[i] != x[i]);
  }
  for (int lane = 0; lane < LANES; lane++) {
    if (unordered[lane]) best.index = NOT_A_NUMBER;
  }
  return best;
}

static void argmax_part(void *job, int task, int thread) {
  const struct argmax *a = job;
  int begin = first_panel(a->k, task, a->parts) * PANEL;
  int end = first_panel(a->k, task + 1, a->parts) * PANEL;
  if (end > a->k) end = a->k;
  for (int row = 0; row < a->m; row++) {
    a->bests[(size_t)task * a->m + row] = best_between(a->x + row * a->ldx, begin, end);
  }
}

/* Divides rows like the product that made them: most values are still in the thread's cache. */
static void run_argmax(struct pool *pool, struct argmax *a, int32_t *out) {
  run_job(pool, argmax_part, a, a->parts);
  for (int row = 0; row < a->m; row++) {
    struct best best = a->bests[row];
    for (int part = 1; part < a->parts; part++) {
      struct best other = a->bests[(size_t)part * a->m + row];
      int is_better = other.value > best.value || other.index == NOT_A_NUMBER;
      if (is_better && best.index != NOT_A_NUMBER) best = other;
    }
    out[row] = best.index;
  }
}

#endif
