/*
 * The exported operations, one C function for each of `CpuKernels` in kernels.ts. Addresses are 64
 * bits wide everywhere, so that a native library and WASM have the same signatures.
 */
#include "attention.h"
#include "elementwise.h"
#include "gemm.h"

#if defined(__wasm__)
#define EXPORT(name) __attribute__((export_name(#name)))
#else
#define EXPORT(name) __attribute__((visibility("default")))
#endif

typedef uint64_t address;

/* One kernel set in use: its threads and its scratch memory. */
struct kernels {
  struct pool pool;
  int threads;
  char *scratch;
  size_t scratch_bytes;
  uint64_t products; /* so far */
  struct packing packings[MAX_THREADS];
};

INLINE void *pointer(address a) { return (void *)(uintptr_t)a; }

/* Scratch memory of at least `bytes`, with undefined contents; NULL if memory is exhausted. */
static char *scratch(struct kernels *kernels, size_t bytes) {
  if (bytes <= kernels->scratch_bytes) return kernels->scratch;
  if (kernels->scratch) host_free(kernels->scratch, kernels->scratch_bytes);
  kernels->scratch = host_alloc(bytes);
  kernels->scratch_bytes = kernels->scratch ? bytes : 0;
  return kernels->scratch;
}

/* 0 if the system refuses memory, threads or CPUs. cpus: one for each thread, or 0 to pin none. */
EXPORT(kernels_open) address kernels_open(int32_t threads, address cpus) {
  struct kernels *kernels = host_alloc(sizeof *kernels);
  if (!kernels) return 0;
  kernels->threads = threads;
#if defined(__wasm__)
  kernels->pool.threads = threads;
#else
  if (!start_pool(&kernels->pool, threads, pointer(cpus))) {
    stop_pool(&kernels->pool, threads);
    host_free(kernels, sizeof *kernels);
    return 0;
  }
#endif
  return (address)(uintptr_t)kernels;
}

EXPORT(kernels_close) void kernels_close(address handle) {
  struct kernels *kernels = pointer(handle);
  if (kernels->scratch) host_free(kernels->scratch, kernels->scratch_bytes);
#if defined(__wasm__)
  atomic_store(&kernels->pool.quit, 1);
  atomic_add(&kernels->pool.epoch, 1);
  wake_all(&kernels->pool.epoch);
#else
  stop_pool(&kernels->pool, kernels->threads);
  host_free(kernels, sizeof *kernels);
#endif
}

#if defined(__wasm__)
/* Body of a worker; returns when the kernel set is closed. */
EXPORT(kernels_help) void kernels_help(address handle, int32_t thread) {
  help(&((struct kernels *)pointer(handle))->pool, thread);
}
#endif

EXPORT(memory_alloc) address memory_alloc(uint64_t bytes) {
  if (bytes > SIZE_MAX - HUGE_PAGE_BYTES) return 0;
  return (address)(uintptr_t)host_alloc((size_t)bytes);
}

EXPORT(memory_free) void memory_free(address memory, uint64_t bytes) {
  host_free(pointer(memory), (size_t)bytes);
}

EXPORT(memory_copy) void memory_copy(address to, address from, uint64_t bytes) {
  __builtin_memmove(pointer(to), pointer(from), (size_t)bytes);
}

struct reading {
  const char *memory;
  size_t bytes;
  float *sums;
};

static void read_part(void *job, int task, int thread) {
  struct reading *r = job;
  const char *from = r->memory + r->bytes / 64 * task / 64 * 64;
  vfloat sums[8];
  UNROLL for (int i = 0; i < 8; i++) sums[i] = splat(0);
  for (size_t i = 0; i + 8 * sizeof(vfloat) <= r->bytes / 64; i += 8 * sizeof(vfloat)) {
    UNROLL for (int j = 0; j < 8; j++) {
      const char *p = from + i + j * sizeof(vfloat);
#if !defined(__wasm__)
      __builtin_prefetch(p + 2048);
#endif
      sums[j] = vmax(sums[j], load((const float *)p));
    }
  }
  UNROLL for (int i = 0; i < 8; i++) r->sums[task] += max_lanes(sums[i]);
}

EXPORT(memory_read) float memory_read(address handle, address memory, uint64_t bytes) {
  struct kernels *kernels = pointer(handle);
  float sums[64] = {0}, sum = 0;
  struct reading r = {pointer(memory), (size_t)bytes, sums};
  run_job(&kernels->pool, read_part, &r, 64);
  for (int i = 0; i < 64; i++) sum += sums[i];
  return sum;
}

EXPORT(packed_bytes) uint64_t packed_bytes(int32_t type, int32_t n, int32_t k) {
  return packed_bytes_of((enum storage)type, n, k);
}

/* Rows first_row .. first_row + count of the packed matrix. */
EXPORT(pack_rows)
void pack_rows(address handle, int32_t type, address rows, address packed, int32_t first_row,
               int32_t count, int32_t k) {
  struct pack p = {(enum storage)type, pointer(rows), pointer(packed), first_row, count, k};
  int first_panel = first_row / PANEL, end_panel = panels_of(first_row + count);
  struct kernels *kernels = pointer(handle);
  run_job(&kernels->pool, pack_panel, &p, end_panel - first_panel);
}

/* 0 if there is no scratch memory. next: weights of the product after this one, or 0. */
EXPORT(gemm)
int32_t gemm(address handle, address x, int32_t ldx, address weights, int32_t type, int32_t n,
             int32_t k, address bias, address y, int32_t ldy, int32_t m, int32_t rounds,
             address next, double next_bytes) {
  struct kernels *kernels = pointer(handle);
  struct gemm g = {.type = (enum storage)type,
                   .x = pointer(x),
                   .weights = pointer(weights),
                   .bias = pointer(bias),
                   .y = pointer(y),
                   .ldx = (size_t)ldx,
                   .ldy = (size_t)ldy,
                   .m = m,
                   .n = n,
                   .k = k,
                   .rounds = rounds && type == BFLOAT16,
                   .packings = kernels->packings,
                   .number = ++kernels->products};
  g.product = product_of(g.type, g.rounds);
  char *memory = scratch(kernels, gemm_scratch_bytes(g.product, m, k, kernels->pool.threads));
  if (!memory) return 0;
  set_ahead(&kernels->pool, m <= FEW_ROWS ? pointer(next) : NULL, (size_t)next_bytes);
  run_gemm(&kernels->pool, &g, memory);
  return 1;
}

EXPORT(embed)
void embed(address handle, address table, int32_t type, int32_t k, address ids, address y,
           int32_t m) {
  struct kernels *kernels = pointer(handle);
  struct rows r = {.type = (enum storage)type, .table = pointer(table), .k = k,
                   .ids = pointer(ids), .y = pointer(y), .m = m};
  run_rows(&kernels->pool, embed_rows, &r, k);
}

/* residual may be 0; else it is added to x first. */
EXPORT(rmsnorm)
void rmsnorm(address handle, address x, address residual, address weight, address y, int32_t m,
             int32_t k, float eps) {
  struct kernels *kernels = pointer(handle);
  struct rows r = {.x = pointer(x), .other = pointer(residual), .weight = pointer(weight),
                   .y = pointer(y), .m = m, .k = k, .eps = eps};
  run_rows(&kernels->pool, rmsnorm_rows, &r, k);
}

EXPORT(head_rmsnorm)
void head_rmsnorm(address handle, address x, int32_t ldx, address weight, int32_t m, int32_t heads,
                  int32_t head_dim, float eps) {
  struct kernels *kernels = pointer(handle);
  struct rows r = {.x = pointer(x), .ldx = (size_t)ldx, .weight = pointer(weight), .m = m,
                   .heads = heads, .k = head_dim, .eps = eps};
  run_rows(&kernels->pool, head_rmsnorm_rows, &r, (int64_t)heads * head_dim);
}

EXPORT(rope)
void rope(address handle, address x, int32_t ldx, address positions, address table, int32_t m,
          int32_t heads, int32_t head_dim) {
  struct kernels *kernels = pointer(handle);
  struct rows r = {.x = pointer(x), .ldx = (size_t)ldx, .ids = pointer(positions),
                   .weight = pointer(table), .m = m, .heads = heads, .k = head_dim};
  run_rows(&kernels->pool, rope_rows, &r, (int64_t)heads * head_dim);
}

EXPORT(silu_mul)
void silu_mul(address handle, address gate_up, address y, int32_t m, int32_t f) {
  struct kernels *kernels = pointer(handle);
  struct rows r = {.x = pointer(gate_up), .y = pointer(y), .m = m, .k = f};
  run_rows(&kernels->pool, silu_mul_rows, &r, 4 * (int64_t)f);
}

/* 0 if there is no scratch memory. */
EXPORT(argmax)
int32_t argmax(address handle, address x, int32_t ldx, address out, int32_t m, int32_t k) {
  struct kernels *kernels = pointer(handle);
  struct argmax a = {.x = pointer(x), .ldx = (size_t)ldx, .m = m, .k = k};
  a.parts = parts_of(k, kernels->pool.threads);
  a.bests = (struct best *)scratch(kernels, (size_t)a.parts * m * sizeof(struct best));
  if (!a.bests) return 0;
  run_argmax(&kernels->pool, &a, pointer(out));
  return 1;
}

INLINE struct cache cache_of(address memory, int32_t type, uint64_t block_bytes,
                             uint64_t layer_offset, int32_t kv_heads, int32_t head_dim,
                             int32_t block_size) {
  return (struct cache){pointer(memory),      (enum storage)type, (size_t)block_bytes,
                        (size_t)layer_offset, kv_heads,           head_dim,
                        block_size};
}

EXPORT(kv_write)
void kv_write(address handle, address cache, int32_t type, uint64_t block_bytes,
              uint64_t layer_offset, int32_t kv_heads, int32_t head_dim, int32_t block_size,
              address keys, address values, int32_t ld, address slots, int32_t m) {
  struct kernels *kernels = pointer(handle);
  struct kv_write w = {
      cache_of(cache, type, block_bytes, layer_offset, kv_heads, head_dim, block_size),
      pointer(keys), pointer(values), (size_t)ld, pointer(slots), m,
      kv_rows_per_task(m, kernels->pool.threads)};
  if (m > 0) run_job(&kernels->pool, write_kv_rows, &w, (m + w.rows_per_task - 1) / w.rows_per_task);
}

/* 0 if there is no scratch memory. */
EXPORT(attention)
int32_t attention(address handle, address cache, int32_t type, uint64_t block_bytes,
                  uint64_t layer_offset, int32_t kv_heads, int32_t head_dim, int32_t block_size,
                  address q, int32_t ldq, address out, int32_t ldo, int32_t heads,
                  int32_t sequences, address query_starts, address context_lens,
                  address block_tables, int32_t max_blocks, int32_t max_context, float scale) {
  struct kernels *kernels = pointer(handle);
  struct attention a = {
      .cache = cache_of(cache, type, block_bytes, layer_offset, kv_heads, head_dim, block_size),
      .q = pointer(q),
      .out = pointer(out),
      .ldq = (size_t)ldq,
      .ldo = (size_t)ldo,
      .heads = heads,
      .sequences = sequences,
      .max_blocks = max_blocks,
      .partitions = (max_context + PARTITION - 1) / PARTITION,
      .query_starts = pointer(query_starts),
      .context_lens = pointer(context_lens),
      .block_tables = pointer(block_tables),
      .scale = scale};
  int tiles = count_tiles(&a), threads = kernels->pool.threads;
  char *memory = scratch(kernels, attention_scratch_bytes(&a, tiles, threads));
  if (!memory && attention_scratch_bytes(&a, tiles, threads) > 0) return 0;
  run_attention(&kernels->pool, &a, tiles, memory);
  return 1;
}

#include "decoder.h"
