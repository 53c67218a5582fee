/** What decides how many threads compute. */
export interface ThreadFacts {
  /** `--cpu-threads` */
  readonly requested: number | null;
  /** Instances that share this host. */
  readonly hostShare: number;
  /** CPUs on which the system lets this process run; empty where that cannot be told. */
  readonly allowedCpus: readonly number[];
  /**
   * CPUs' worth of time that it gives: `navigator.hardwareConcurrency`, which counts the allowed CPUs and
   * is bounded by the quota of the control group (measured, Deno 2.9.6).
   */
  readonly parallelism: number;
}

/** Threads that compute, and the CPU of each if they are to be pinned. */
export interface ThreadPlan {
  readonly threads: number;
  readonly cpus?: readonly number[];
}

/**
 * Divides the host's CPUs among its instances. Threads are pinned only where one instance has all CPUs
 * to itself: otherwise it is not known here who else runs where, and under a quota the system must be
 * free to run them where there is time.
 */
export function planThreads(facts: ThreadFacts): ThreadPlan {
  const { requested, hostShare, allowedCpus: cpus, parallelism } = facts;
  if (requested !== null) return { threads: requested };
  const threads = Math.max(1, Math.floor(parallelism / hostShare));
  return threads === cpus.length && threads === parallelism ? { threads, cpus } : { threads };
}
