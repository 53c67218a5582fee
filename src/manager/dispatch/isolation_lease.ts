import { ISOLATION_LEASE_MS } from "../../core/protocol/dispatch.ts";

/**
 * Lets one API server at a time isolate requests: run a request that may be poison on an instance to
 * see whether the instance crashes. If two API servers did so at once, neither could tell which
 * request a crash is due to. The lease ends `ISOLATION_LEASE_MS` after its holder last renewed it. See
 * src/manager/README.md, "Poison requests".
 */
export class IsolationLease {
  /** API servers with uncleared requests, and until when the lease of each runs. */
  readonly #untilMs = new Map<string, number>();

  /** @returns whether the API server may isolate a request now; if so, the lease is renewed */
  take(frontendId: string, nowMs: number): boolean {
    for (const [other, untilMs] of this.#untilMs) {
      if (nowMs >= untilMs) this.#untilMs.delete(other);
      else if (other !== frontendId) return false;
    }
    this.keep(frontendId, nowMs);
    return true;
  }

  /**
   * An API server still isolates a request, or waits to see whether requests that were on a lost
   * instance survive on the next.
   */
  keep(frontendId: string, nowMs: number): void {
    this.#untilMs.set(frontendId, nowMs + ISOLATION_LEASE_MS);
  }
}
