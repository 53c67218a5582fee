/*
 * Weights in panels of 16 rows (outputs), so that one pass over a panel yields 16 outputs. A panel
 * is a sequence of steps of two k: float32 and float16 as [2][16], bfloat16 as [16][2], the operand
 * order of the bfloat16 dot-product instructions. The steps of two panels alternate in memory. Both
 * panels are multiplied at once, because one chain of sums is slower than memory; and one stream is
 * read a fifth faster than two. k is padded with zeros to K_UNIT, n to whole pairs of panels.
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
/* Bytes of a step of one panel. */
INLINE size_t step_bytes(enum storage type) { return 2 * PANEL * storage_bytes(type); }
INLINE int pairs_of(int n) { return (panels_of(n) + 1) / 2; }
INLINE size_t packed_bytes_of(enum storage type, int n, int k) {
  return 2 * pairs_of(n) * panel_bytes(type, k);
}

/* Address of a panel's first step; each further step lies 2 step_bytes behind the previous one. */
INLINE char *panel_at(const char *packed, enum storage type, int panel, int k) {
  return (char *)packed + panel / 2 * 2 * panel_bytes(type, k) + panel % 2 * step_bytes(type);
}

/* Divides n outputs among threads in parts of whole pairs, 16 parts per thread if possible. */
INLINE int parts_of(int n, int threads) {
  return pairs_of(n) < 16 * threads ? pairs_of(n) : 16 * threads;
}
INLINE int first_panel(int n, int part, int parts) {
  return 2 * part_start(pairs_of(n), part, parts);
}

/* Index of element k of lane `lane`, counted from the panel's first step. */
INLINE size_t panel_index(enum storage type, int lane, int k) {
  size_t step = (size_t)(k / 2) * 4 * PANEL;
  return step + (type == BFLOAT16 ? lane * 2 + k % 2 : k % 2 * PANEL + lane);
}

struct pack {
  enum storage type;
  const char *rows; /* [count, k], any alignment */
  char *packed;
  int first_row, count, k;
};

/*
 * Writes `count` elements (of 32 or 16 bits) of each of `lanes` rows to their places from `lane` on,
 * in runs of PACK_RUN, so that each cache line stays in the cache until it is full.
 */
enum { PACK_RUN = 64 };
#define INTERLEAVE(name, element, source_element, place) \
  static void name(const char *source, size_t row_bytes, char *target, int lane, int lanes, \
                   int count) { \
    for (int begin = 0; begin < count; begin += PACK_RUN) { \
      int end = begin + PACK_RUN < count ? begin + PACK_RUN : count; \
      for (int r = 0; r < lanes; r++) { \
        const source_element *from = (const source_element *)(source + r * row_bytes); \
        element *to = (element *)target + lane + r; \
        for (int i = begin; i < end; i++) to[(size_t)(place) * PANEL] = from[i]; \
      } \
    } \
  }
/* Pairs of bfloat16: one per step. */
INTERLEAVE(interleave_pairs, uint32_t, uint32_unaligned, i * 2)
INTERLEAVE(interleave_32, uint32_t, uint32_unaligned, i / 2 * 4 + i % 2)
INTERLEAVE(interleave_16, uint16_t, uint16_unaligned, i / 2 * 4 + i % 2)

/* The rows of one panel that this piece holds. */
static void pack_panel(void *job, int task, int thread) {
  const struct pack *p = job;
  int panel = p->first_row / PANEL + task, k = p->k;
  int begin = panel * PANEL, end = begin + PANEL;
  if (begin < p->first_row) begin = p->first_row;
  if (end > p->first_row + p->count) end = p->first_row + p->count;
  size_t row_bytes = (size_t)k * storage_bytes(p->type);
  const char *source = p->rows + (size_t)(begin - p->first_row) * row_bytes;
  char *target = panel_at(p->packed, p->type, panel, k);
  int lane = begin % PANEL, lanes = end - begin;
  if (p->type == BFLOAT16) interleave_pairs(source, row_bytes, target, lane, lanes, k / 2);
  else if (p->type == FLOAT32) interleave_32(source, row_bytes, target, lane, lanes, k);
  else interleave_16(source, row_bytes, target, lane, lanes, k);
}

#endif
