/** What the number of computing threads depends on. */
export interface ThreadFacts {
  /** `--cpu-threads` */
  readonly requested: number | null;
  /** Instances that share this host. */
  readonly hostShare: number;
  /** CPUs on which the system lets this process run; empty if unknown. */
  readonly allowedCpus: readonly number[];
  /**
   * How many CPUs' time the process gets: `navigator.hardwareConcurrency`, which is the number of allowed
   * CPUs or, if it is smaller, the quota of the control group (measured, Deno 2.9.6).
   */
  readonly parallelism: number;
}

/** The number of computing threads, and the CPU of each if they are pinned. */
export interface ThreadPlan {
  readonly threads: number;
  readonly cpus?: readonly number[];
}

/**
 * Divides the host's CPUs among its instances. Threads are pinned only if one instance has all CPUs to
 * itself. Otherwise other instances may run on the same CPUs, and under a quota the system must be free to
 * move threads to idle CPUs.
 */
export function planThreads(facts: ThreadFacts): ThreadPlan {
  const { requested, hostShare, allowedCpus: cpus, parallelism } = facts;
  if (requested !== null) return { threads: requested };
  const threads = Math.max(1, Math.floor(parallelism / hostShare));
  return threads === cpus.length && threads === parallelism ? { threads, cpus } : { threads };
}
