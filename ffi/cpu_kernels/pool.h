/*
 * A pool of threads that runs a job's numbered tasks. The calling thread takes part. A helper joins
 * a job only while the job is open, and the caller waits only for helpers that joined, so a helper
 * that the system wakes late costs nothing. Idle helpers spin for about 50 us (more than the gap
 * between two operations of a step), then sleep in the kernel.
 */
#ifndef POOL_H
#define POOL_H

#include "host.h"

/* Which task runs on which thread varies; results must depend on the task only. */
typedef void (*task_function)(void *job, int task, int thread);

enum { MAX_THREADS = 512, JOB_OPEN = 1024, JOB_JOINED = JOB_OPEN - 1 };
/* Most bytes that a thread prefetches; they must leave room in its second-level cache. */
enum { MAX_AHEAD_BYTES = 256 << 10, AHEAD_STEP_BYTES = 1024 };

struct pool {
  int threads; /* with the caller */
  uint32_t epoch; /* grows with every job; helpers sleep on it */
  uint32_t sleeping_helpers;
  uint32_t quit;
  task_function run;
  void *job;
  char apart1[64];
  uint32_t state; /* JOB_OPEN | number of helpers inside the job */
  uint32_t caller_sleeping;
  char apart2[64];
  struct share { int next, end; char apart[56]; } shares[MAX_THREADS];
  const char *ahead; /* memory that the threads read next, in equal shares; or NULL */
  size_t ahead_bytes;
#if !defined(__wasm__)
  struct helper { struct pool *pool; int thread; unsigned long handle; } *helpers;
  int pins;
  struct cpu_mask caller_cpus; /* before pinning */
#endif
};

INLINE uint32_t atomic_load(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
INLINE void atomic_store(uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
INLINE uint32_t atomic_add(uint32_t *word, uint32_t value) {
  return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
}

/*
 * A thread's own tasks are neighbours, which usually read adjacent memory. A thread that has
 * finished its own tasks takes tasks of others.
 */
static void run_tasks(struct pool *pool, int thread) {
  for (int i = 0; i < pool->threads; i++) {
    int owner = thread + i < pool->threads ? thread + i : thread + i - pool->threads;
    struct share *share = &pool->shares[owner];
    while (__atomic_load_n(&share->next, __ATOMIC_RELAXED) < share->end) {
      int task = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED);
      if (task < share->end) pool->run(pool->job, task, thread);
    }
  }
}

/* How much of its share a thread has prefetched. */
struct reading_ahead {
  const char *memory;
  size_t done_bytes;
};

/*
 * Prefetches some more of the memory that this thread reads next into its second-level cache, while
 * memory would otherwise be idle. Only a hint: `ahead` may change at any time.
 */
INLINE void read_ahead(struct pool *pool, int thread, struct reading_ahead *reading) {
#if !defined(__wasm__)
  const char *memory = __atomic_load_n(&pool->ahead, __ATOMIC_RELAXED);
  size_t share = __atomic_load_n(&pool->ahead_bytes, __ATOMIC_RELAXED) / pool->threads;
  if (memory != reading->memory) *reading = (struct reading_ahead){memory, 0};
  if (!memory || reading->done_bytes >= MAX_AHEAD_BYTES || reading->done_bytes >= share) return;
  const char *from = memory + share * thread + reading->done_bytes;
  UNROLL for (int i = 0; i < AHEAD_STEP_BYTES; i += 64) __builtin_prefetch(from + i, 0, 2);
  reading->done_bytes += AHEAD_STEP_BYTES;
#endif
}

static int join_job(struct pool *pool) {
  uint32_t state = atomic_load(&pool->state);
  while (state & JOB_OPEN) {
    if (__atomic_compare_exchange_n(&pool->state, &state, state + 1, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
      return 1;
    }
  }
  return 0;
}

static void leave_job(struct pool *pool) {
  uint32_t before = atomic_add(&pool->state, (uint32_t)-1);
  if (before == 1 && atomic_load(&pool->caller_sleeping)) wake_all(&pool->state);
}

/* Body of a helper thread; returns when the pool closes. */
static void help(struct pool *pool, int thread) {
  uint32_t seen = 0;
  struct reading_ahead reading = {0};
  for (;;) {
    for (int spins = 0; atomic_load(&pool->epoch) == seen; spins++) {
      if (spins < SPIN_LIMIT) {
        read_ahead(pool, thread, &reading);
        spin_pause();
        continue;
      }
      atomic_add(&pool->sleeping_helpers, 1);
      wait_while_equal(&pool->epoch, seen);
      atomic_add(&pool->sleeping_helpers, (uint32_t)-1);
    }
    seen = atomic_load(&pool->epoch);
    if (atomic_load(&pool->quit)) return;
    if (join_job(pool)) {
      run_tasks(pool, thread);
      leave_job(pool);
    }
  }
}

static void close_job(struct pool *pool) {
  uint32_t state = __atomic_and_fetch(&pool->state, ~(uint32_t)JOB_OPEN, __ATOMIC_SEQ_CST);
  struct reading_ahead reading = {0};
  for (int spins = 0; state & JOB_JOINED; state = atomic_load(&pool->state)) {
    if (spins++ < SPIN_LIMIT) {
      read_ahead(pool, 0, &reading);
      spin_pause();
      continue;
    }
    atomic_store(&pool->caller_sleeping, 1);
    state = atomic_load(&pool->state);
    if (state & JOB_JOINED) wait_while_equal(&pool->state, state);
    atomic_store(&pool->caller_sleeping, 0);
  }
}

/* Index of the first of `count` items in part `part` of `parts` near-equal parts. */
INLINE int part_start(int count, int part, int parts) {
  return (int)((int64_t)count * part / parts);
}

/* Runs tasks 0 .. tasks - 1 and returns when all are done. */
static void run_job(struct pool *pool, task_function run, void *job, int tasks) {
  if (tasks <= 1 || pool->threads == 1) {
    for (int task = 0; task < tasks; task++) run(job, task, 0);
    return;
  }
  pool->run = run;
  pool->job = job;
  for (int i = 0; i < pool->threads; i++) {
    pool->shares[i].next = part_start(tasks, i, pool->threads);
    pool->shares[i].end = part_start(tasks, i + 1, pool->threads);
  }
  atomic_store(&pool->state, JOB_OPEN);
  atomic_add(&pool->epoch, 1);
  if (atomic_load(&pool->sleeping_helpers) > 0) wake_all(&pool->epoch);
  run_tasks(pool, 0);
  close_job(pool);
}

/* Until the next call, threads that wait for a job prefetch this memory. */
INLINE void set_ahead(struct pool *pool, const void *memory, size_t bytes) {
  __atomic_store_n(&pool->ahead_bytes, bytes, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->ahead, memory, __ATOMIC_RELAXED);
}

#if !defined(__wasm__)
static void *helper_main(void *argument) {
  struct helper *helper = argument;
  help(helper->pool, helper->thread);
  return NULL;
}

/* Starts the helpers; with `cpus`, thread i is pinned to cpus[i], the caller included. */
static int start_pool(struct pool *pool, int threads, const int32_t *cpus) {
  pool->threads = 1;
  pool->helpers = host_alloc((size_t)threads * sizeof(struct helper));
  if (!pool->helpers) return 0;
  if (cpus) {
    get_cpus(&pool->caller_cpus);
    pool->pins = 1;
  }
  for (int i = 1; i < threads; i++) {
    struct helper *helper = &pool->helpers[i];
    *helper = (struct helper){.pool = pool, .thread = i};
    /* The helper inherits the caller's CPU, and so runs there from its first instruction on. */
    if (cpus && pin_to_cpu(cpus[i])) return 0;
    if (pthread_create(&helper->handle, NULL, helper_main, helper)) return 0;
    pool->threads = i + 1;
  }
  return !cpus || !pin_to_cpu(cpus[0]);
}

/* Ends the helpers and restores the calling thread's CPUs. */
static void stop_pool(struct pool *pool, int threads) {
  atomic_store(&pool->quit, 1);
  atomic_add(&pool->epoch, 1);
  wake_all(&pool->epoch);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->helpers[i].handle, NULL);
  if (pool->pins) set_cpus(&pool->caller_cpus);
  if (pool->helpers) host_free(pool->helpers, (size_t)threads * sizeof(struct helper));
}
#endif
#endif
