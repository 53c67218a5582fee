/** Waits that many milliseconds, or longer. */
export type Sleep = (delayMs: number) => Promise<void> | void;

/** Most lateness that later waits make up for; more is a stall of the host. */
const MAX_OWED_MS = 20;

/**
 * Waits whose errors do not add up: after a wait that took too long, the next waits are shorter. Timers
 * that are a millisecond late (setTimeout) then still give the right pace.
 */
export class Pacer {
  #owedMs = 0;

  constructor(private readonly nowMs: () => number, private readonly sleep: Sleep) {}

  async wait(delayMs: number): Promise<void> {
    const dueMs = delayMs - this.#owedMs;
    if (dueMs <= 0) {
      this.#owedMs -= delayMs;
      return;
    }
    const startMs = this.nowMs();
    await this.sleep(dueMs);
    this.#owedMs = Math.min(MAX_OWED_MS, Math.max(0, this.nowMs() - startMs - dueMs));
  }
}

/** Blocks this thread without using its core, for workers. About 0.1 ms late on Linux. */
export function blockThread(delayMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, delayMs);
}
