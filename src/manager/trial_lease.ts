/** A request that kills instances does so within this time. */
const LEASE_MS = 1_000;

/**
 * Lets one API server at a time try requests that may be what instances die of, so that the suspects
 * of several are told apart as those of one are.
 */
export class TrialLease {
  #holder: string | null = null;
  #untilMs = -Infinity;

  /** Whether an API server may give a suspect to an instance now. */
  take(frontendId: string, nowMs: number): boolean {
    if (frontendId !== this.#holder && nowMs < this.#untilMs) return false;
    this.#holder = frontendId;
    this.#untilMs = nowMs + LEASE_MS;
    return true;
  }
}
