/*
 * bfloat16 products on AMX tiles: a C tile of 16 rows by one panel sums over k in steps of 32. The
 * instruction treats each row of a tile separately and in the same way, and every C tile runs over
 * all of k in order. So here, too, a row's result does not depend on its batch.
 */
#ifndef GEMM_AMX_H
#define GEMM_AMX_H

#include "pack.h"

enum { TILE_ROWS = 16, TILE_K = 32, X_ROW_BYTES = K_CHUNK * 2, STEP_BYTES = 4 * PANEL };

struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} __attribute__((packed));

/* Tiles 0-3 are C (and 4-5 A) of `rows` rows; 6-7 are B, 16 pairs of k by 16 columns. */
static void configure_tiles(int rows) {
  struct tile_config config = {.palette = 1};
  for (int tile = 0; tile < 8; tile++) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = tile < 6 ? rows : TILE_ROWS;
  }
  _tile_loadconfig(&config);
}

INLINE void prefetch_tile(const char *p) {
  UNROLL for (int line = 0; line < TILE_ROWS; line++) __builtin_prefetch(p + line * 2 * STEP_BYTES);
}

/* `blocks` (1, 2) row blocks, x and y of the second at x2 and y2, by `panels` (1, 2) of a pair. */
INLINE void multiply_amx(int blocks, int panels, const char *x, const char *x2, size_t chunk_bytes,
                         const char *weights, int k, float *y, float *y2, size_t ldy) {
  _tile_zero(0);
  if (panels > 1) _tile_zero(1);
  if (blocks > 1) _tile_zero(2);
  if (blocks > 1 && panels > 1) _tile_zero(3);
  for (int begin = 0; begin < k; begin += K_CHUNK, x += chunk_bytes, x2 += chunk_bytes) {
    int end = k - begin < K_CHUNK ? k - begin : K_CHUNK;
    for (int i = 0; i < end; i += TILE_K, weights += TILE_K * STEP_BYTES) {
      if (blocks == 1) {
        prefetch_tile(weights + 8192);
        if (panels > 1) prefetch_tile(weights + STEP_BYTES + 8192);
      }
      _tile_loadd(6, weights, 2 * STEP_BYTES);
      _tile_loadd(4, x + i * 2, X_ROW_BYTES);
      _tile_dpbf16ps(0, 4, 6);
      if (panels > 1) {
        _tile_loadd(7, weights + STEP_BYTES, 2 * STEP_BYTES);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (blocks > 1) {
        _tile_loadd(5, x2 + i * 2, X_ROW_BYTES);
        _tile_dpbf16ps(2, 5, 6);
        if (panels > 1) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, y, ldy * 4);
  if (panels > 1) _tile_stored(1, y + PANEL, ldy * 4);
  if (blocks > 1) _tile_stored(2, y2, ldy * 4);
  if (blocks > 1 && panels > 1) _tile_stored(3, y2 + PANEL, ldy * 4);
}

/* All m rows by one or two panels. If m does not fill the last block, that block starts earlier. */
static void multiply_panels_amx(const char *packed_x, int m, const char *weights, int k,
                                int panels, float *y, size_t ldy) {
  int rows = m < TILE_ROWS ? m : TILE_ROWS;
  size_t chunk_bytes = (size_t)m * X_ROW_BYTES;
  for (int row = 0; row < m; row += 2 * TILE_ROWS) {
    int first = row + rows <= m ? row : m - rows;
    int second = row + 2 * rows <= m ? row + rows : m - rows;
    const char *x = packed_x + (size_t)first * X_ROW_BYTES;
    const char *x2 = packed_x + (size_t)second * X_ROW_BYTES;
    float *at = y + (size_t)first * ldy, *at2 = y + (size_t)second * ldy;
    if (second <= first) {
      if (panels == 1) multiply_amx(1, 1, x, x, chunk_bytes, weights, k, at, at, ldy);
      else multiply_amx(1, 2, x, x, chunk_bytes, weights, k, at, at, ldy);
    } else {
      if (panels == 1) multiply_amx(2, 1, x, x2, chunk_bytes, weights, k, at, at2, ldy);
      else multiply_amx(2, 2, x, x2, chunk_bytes, weights, k, at, at2, ldy);
    }
  }
}

#endif
