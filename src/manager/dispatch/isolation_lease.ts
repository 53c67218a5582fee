import { ISOLATION_LEASE_MS } from "../../core/protocol/dispatch.ts";
/**
 * Lets one API server at a time try requests that may be what instances die of, and only while no
 * other has any that are not cleared yet, so that the suspects of several are told apart as those of
 * one are.
 */
export class TrialLease {
  /** Until when nobody but these API servers may try any. */
  readonly #untilMs = new Map<string, number>();

  /** Whether an API server may give a suspect to an instance now. */
  take(frontendId: string, nowMs: number): boolean {
    for (const [other, untilMs] of this.#untilMs) {
      if (nowMs >= untilMs) this.#untilMs.delete(other);
      else if (other !== frontendId) return false;
    }
    this.keep(frontendId, nowMs);
    return true;
  }

  /** An API server is still trying one, or waits for others that were lost to survive. */
  keep(frontendId: string, nowMs: number): void {
    this.#untilMs.set(frontendId, nowMs + ISOLATION_LEASE_MS);
  }
}
