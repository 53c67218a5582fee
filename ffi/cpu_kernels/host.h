/*
 * What the kernels need from the system: memory, waiting on a word, threads. Linux functions are
 * declared here and found in the process (Deno links libc), so that building a library needs no libc
 * headers, and loading it no particular libc. WASM has its own linear memory and atomics.
 */
#ifndef HOST_H
#define HOST_H

#include "simd.h"

enum { HUGE_PAGE_BYTES = 2 << 20 };

#if defined(__wasm__)

INLINE void wait_while_equal(uint32_t *word, uint32_t value) {
  __builtin_wasm_memory_atomic_wait32((int *)word, (int)value, -1);
}
INLINE void wake_all(uint32_t *word) { __builtin_wasm_memory_atomic_notify((int *)word, 1024); }
INLINE void spin_pause(void) { __asm__ volatile(""); }
#define SPIN_LIMIT 4000

/* The compiler may call these for structure copies; loops become memory.copy and memory.fill. */
void *memcpy(void *to, const void *from, size_t bytes) {
  char *t = to;
  const char *f = from;
  for (size_t i = 0; i < bytes; i++) t[i] = f[i];
  return to;
}
void *memset(void *to, int value, size_t bytes) {
  char *t = to;
  for (size_t i = 0; i < bytes; i++) t[i] = (char)value;
  return to;
}

enum { UNIT_BYTES = 64, WASM_PAGE_BYTES = 65536 };

/*
 * A free piece of linear memory; the list is sorted by address and has no two neighbours. From
 * `fresh` on memory has never been used, so it is zero except for the pieces' own fields.
 */
struct free_piece {
  size_t bytes;
  struct free_piece *next;
};

extern char __heap_base;
static struct free_piece *free_pieces;
static size_t heap_end, fresh;

INLINE size_t unit_bytes(size_t bytes) {
  return (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
}

static void host_free(void *address, size_t size) {
  struct free_piece *piece = address, *previous = NULL, *next = free_pieces;
  while (next && next < piece) previous = next, next = next->next;
  piece->bytes = unit_bytes(size);
  piece->next = next;
  if (previous) previous->next = piece;
  else free_pieces = piece;
  if (next && (char *)piece + piece->bytes == (char *)next) {
    piece->bytes += next->bytes;
    piece->next = next->next;
    *next = (struct free_piece){0};
  }
  if (previous && (char *)previous + previous->bytes == (char *)piece) {
    previous->bytes += piece->bytes;
    previous->next = piece->next;
    *piece = (struct free_piece){0};
  }
}

/* Adds room for `size` bytes at the end of linear memory to the free list; 0 when at its limit. */
static int grow_heap(size_t size) {
  size_t have = (size_t)__builtin_wasm_memory_size(0) * WASM_PAGE_BYTES;
  if (heap_end == 0) {
    heap_end = unit_bytes((size_t)&__heap_base);
    if (heap_end < have) host_free((void *)heap_end, have - heap_end);
    heap_end = have;
    return 1;
  }
  size_t pages = (size + WASM_PAGE_BYTES - 1) / WASM_PAGE_BYTES;
  if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) return 0;
  host_free((void *)heap_end, pages * WASM_PAGE_BYTES);
  heap_end += pages * WASM_PAGE_BYTES;
  return 1;
}

/* First fit; zeroed, 64-byte aligned. NULL when linear memory cannot grow. */
static void *host_alloc(size_t bytes) {
  size_t size = unit_bytes(bytes);
  do {
    struct free_piece **link = &free_pieces;
    for (struct free_piece *piece = *link; piece; link = &piece->next, piece = *link) {
      if (piece->bytes < size) continue;
      struct free_piece *rest = piece->next;
      if (piece->bytes > size) {
        rest = (struct free_piece *)((char *)piece + size);
        rest->bytes = piece->bytes - size;
        rest->next = piece->next;
      }
      *link = rest;
      size_t start = (size_t)piece, end = start + size;
      *piece = (struct free_piece){0};
      if (start < fresh) memset(piece, 0, (end < fresh ? end : fresh) - start);
      if (end > fresh) fresh = end;
      return piece;
    }
  } while (grow_heap(size));
  return NULL;
}

#else /* Linux */

extern void *mmap(void *address, size_t bytes, int protection, int flags, int fd, long offset);
extern int munmap(void *address, size_t bytes);
extern int madvise(void *address, size_t bytes, int advice);
extern long syscall(long number, ...);
extern int pthread_create(unsigned long *thread, const void *attributes, void *(*start)(void *),
                          void *argument);
extern int pthread_join(unsigned long thread, void **result);
extern void *memcpy(void *to, const void *from, size_t bytes);
extern void *memmove(void *to, const void *from, size_t bytes);
extern void *memset(void *to, int value, size_t bytes);

enum {
  PROTECTION_READ_WRITE = 3,
  MAP_PRIVATE_ANONYMOUS = 0x22,
  ADVICE_HUGE_PAGES = 14,
  FUTEX_WAIT_PRIVATE = 128,
  FUTEX_WAKE_PRIVATE = 129,
#if defined(__x86_64__)
  SYSCALL_FUTEX = 202,
  SYSCALL_SCHED_SETAFFINITY = 203,
  SYSCALL_SCHED_GETAFFINITY = 204,
#else
  SYSCALL_FUTEX = 98,
  SYSCALL_SCHED_SETAFFINITY = 122,
  SYSCALL_SCHED_GETAFFINITY = 123,
#endif
};

INLINE void wait_while_equal(uint32_t *word, uint32_t value) {
  syscall(SYSCALL_FUTEX, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
INLINE void wake_all(uint32_t *word) {
  syscall(SYSCALL_FUTEX, word, FUTEX_WAKE_PRIVATE, 1024, NULL, NULL, 0);
}

#if defined(__x86_64__)
INLINE void spin_pause(void) { __builtin_ia32_pause(); }
#define SPIN_LIMIT 1500 /* about 50 us */
#else
INLINE void spin_pause(void) { __asm__ volatile("yield"); }
#define SPIN_LIMIT 20000
#endif

enum { MAX_CPUS = 1024 };
struct cpu_mask {
  uint64_t words[MAX_CPUS / 64];
};

INLINE void get_cpus(struct cpu_mask *mask) {
  syscall(SYSCALL_SCHED_GETAFFINITY, 0, sizeof *mask, mask);
}
/* Lets the calling thread run on these CPUs only; nonzero if the system does not allow it. */
INLINE int set_cpus(const struct cpu_mask *mask) {
  return syscall(SYSCALL_SCHED_SETAFFINITY, 0, sizeof *mask, mask) < 0;
}
INLINE int pin_to_cpu(int cpu) {
  struct cpu_mask mask = {{0}};
  if (cpu < 0 || cpu >= MAX_CPUS) return 1;
  mask.words[cpu / 64] = 1ull << (cpu % 64);
  return set_cpus(&mask);
}

enum { PAGE_BYTES = 4096 };

/* Large memory gets whole huge pages: small pages cost a third of the read bandwidth. */
INLINE size_t mapped_bytes(size_t bytes) {
  size_t unit = bytes >= HUGE_PAGE_BYTES / 4 ? HUGE_PAGE_BYTES : PAGE_BYTES;
  return (bytes + unit - 1) / unit * unit;
}

/* Zeroed memory, on huge pages unless it is small. NULL if the memory is exhausted. */
static void *host_alloc(size_t bytes) {
  size_t size = mapped_bytes(bytes);
  size_t slack = size >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 0;
  char *start = mmap(NULL, size + slack, PROTECTION_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (start == (char *)-1) return NULL;
  if (slack == 0) return start;
  char *aligned = (char *)(((uintptr_t)start + slack - 1) / slack * slack);
  if (aligned > start) munmap(start, (size_t)(aligned - start));
  size_t tail = slack - (size_t)(aligned - start);
  if (tail > 0) munmap(aligned + size, tail);
  madvise(aligned, size, ADVICE_HUGE_PAGES);
  return aligned;
}

INLINE void host_free(void *address, size_t bytes) { munmap(address, mapped_bytes(bytes)); }

#endif
#endif
