/** Waits the milliseconds that it is given, or longer. */
export type Sleep = (delayMs: number) => Promise<void> | void;

/** Lateness beyond this is the host's, and not made up for. */
const MAX_OWED_MS = 20;

/**
 * Waits whose errors do not add up: what one wait took too long, the next ones are shorter by. Timers
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

/** Blocks this thread without using its core; about 0.1 ms late (Linux). For workers only. */
export function blockThread(delayMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, delayMs);
}
