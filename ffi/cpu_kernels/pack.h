/*
 * Weights in panels of 16 rows (outputs), so that one pass over a panel's consecutive memory yields
 * 16 outputs. Within a panel the 16 rows are interleaved by k: float32 and float16 as [k][16],
 * bfloat16 as [k / 2][16][2], the operand order of the bfloat16 dot-product instructions. k is
 * padded with zeros to K_UNIT, n to whole panels.
 */
#ifndef PACK_H
#define PACK_H

#include "pool.h"

enum { K_UNIT = 32 };

INLINE int padded_k(int k) { return (k + K_UNIT - 1) / K_UNIT * K_UNIT; }
INLINE int panels_of(int n) { return (n + PANEL - 1) / PANEL; }
INLINE size_t panel_bytes(enum storage type, int k) {
  return (size_t)padded_k(k) * PANEL * storage_bytes(type);
}
INLINE size_t packed_bytes_of(enum storage type, int n, int k) {
  return (size_t)panels_of(n) * panel_bytes(type, k);
}

/* Index of element k of lane `lane` within a panel. */
INLINE size_t panel_index(enum storage type, int lane, int k) {
  if (type == BFLOAT16) return ((size_t)(k / 2) * PANEL + lane) * 2 + k % 2;
  return (size_t)k * PANEL + lane;
}

struct pack {
  enum storage type;
  const char *rows; /* [count, k], any alignment */
  char *packed;
  int first_row, count, k;
};

/* The rows of one panel that this piece holds. */
static void pack_panel(void *job, int task, int thread) {
  const struct pack *p = job;
  int panel = p->first_row / PANEL + task, k = p->k;
  int begin = panel * PANEL, end = begin + PANEL;
  if (begin < p->first_row) begin = p->first_row;
  if (end > p->first_row + p->count) end = p->first_row + p->count;
  size_t row_bytes = (size_t)k * storage_bytes(p->type);
  const char *source = p->rows + (size_t)(begin - p->first_row) * row_bytes;
  char *target = p->packed + (size_t)panel * panel_bytes(p->type, k);
  int lane = begin % PANEL, lanes = end - begin;
  if (p->type == BFLOAT16) {
    for (int pair = 0; pair < k / 2; pair++) {
      uint32_t *out = (uint32_t *)target + (size_t)pair * PANEL + lane;
      for (int r = 0; r < lanes; r++) {
        out[r] = ((const uint32_unaligned *)(source + (size_t)r * row_bytes))[pair];
      }
    }
  } else if (p->type == FLOAT16) {
    for (int i = 0; i < k; i++) {
      uint16_t *out = (uint16_t *)target + (size_t)i * PANEL + lane;
      for (int r = 0; r < lanes; r++) {
        out[r] = ((const uint16_unaligned *)(source + (size_t)r * row_bytes))[i];
      }
    }
  } else {
    for (int i = 0; i < k; i++) {
      uint32_t *out = (uint32_t *)target + (size_t)i * PANEL + lane;
      for (int r = 0; r < lanes; r++) {
        out[r] = ((const uint32_unaligned *)(source + (size_t)r * row_bytes))[i];
      }
    }
  }
}

#endif
