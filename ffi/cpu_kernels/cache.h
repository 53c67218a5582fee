/* The paged cache (`cpu-kt` of src/kv/layout.ts), and writing to it. */
#ifndef CACHE_H
#define CACHE_H

#include "pool.h"

struct cache {
  char *address;
  enum storage type;
  size_t block_bytes, layer_offset; /* of the layer's run within a block */
  int kv_heads, head_dim, block_size;
};

INLINE char *keys_of(const struct cache *c, int block, int kv_head) {
  size_t head_bytes = 2 * (size_t)c->head_dim * c->block_size * storage_bytes(c->type);
  return c->address + (size_t)block * c->block_bytes + c->layer_offset + kv_head * head_bytes;
}
INLINE char *values_of(const struct cache *c, int block, int kv_head) {
  size_t keys_bytes = (size_t)c->head_dim * c->block_size * storage_bytes(c->type);
  return keys_of(c, block, kv_head) + keys_bytes;
}

struct kv_write {
  struct cache cache;
  const float *keys, *values;
  size_t ld;
  const int32_t *slots;
  int m, rows_per_task;
};

INLINE void write_kv_row(enum storage type, const struct kv_write *w, int row) {
  const struct cache *c = &w->cache;
  int block = w->slots[row] / c->block_size, offset = w->slots[row] % c->block_size;
  for (int head = 0; head < c->kv_heads; head++) {
    const float *key = w->keys + (size_t)row * w->ld + (size_t)head * c->head_dim;
    const float *value = w->values + (size_t)row * w->ld + (size_t)head * c->head_dim;
    char *keys = keys_of(c, block, head), *values = values_of(c, block, head);
    size_t stride = c->block_size, first = (size_t)offset * c->head_dim;
    for (int d = 0; d < c->head_dim; d++) store_from_float(type, keys, d * stride + offset, key[d]);
    for (int d = 0; d < c->head_dim; d++) store_from_float(type, values, first + d, value[d]);
  }
}

/* A task takes a run of rows, because neighbours in a block share cache lines. */
enum { MAX_KV_ROWS = 64 };
INLINE int kv_rows_per_task(int m, int threads) {
  int share = (m + threads - 1) / threads;
  return share < MAX_KV_ROWS ? share : MAX_KV_ROWS;
}

static void write_kv_rows(void *job, int task, int thread) {
  const struct kv_write *w = job;
  int begin = task * w->rows_per_task, end = begin + w->rows_per_task;
  for (int row = begin; row < end && row < w->m; row++) {
    if (w->cache.type == FLOAT32) write_kv_row(FLOAT32, w, row);
    else if (w->cache.type == FLOAT16) write_kv_row(FLOAT16, w, row);
    else write_kv_row(BFLOAT16, w, row);
  }
}

#endif
