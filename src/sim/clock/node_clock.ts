import type { Clock } from "../../core/clock.ts";

/**
 * The clock of one simulated process. It reads a little differently from that of others, stands still
 * for a process that hangs, and never rings again for one that is dead.
 */
export class NodeClock implements Clock {
  #isPaused = false;
  #isDead = false;
  #numRings = 0;
  /** What has rung during a pause. */
  #missed: (() => void)[] = [];

  /** @param skewMs how far this process's time is ahead of the simulation's */
  constructor(private readonly base: Clock, private readonly skewMs = 0) {}

  /** Nothing happens in the process now: it hangs or is dead. */
  get isStopped(): boolean {
    return this.#isPaused || this.#isDead;
  }

  /** Timers that rang. */
  get numRings(): number {
    return this.#numRings;
  }

  nowMs(): number {
    return this.base.nowMs() + this.skewMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    let isCancelled = false;
    const ring = () => {
      if (isCancelled || this.#isDead) return;
      if (this.#isPaused) this.#missed.push(ring);
      else {
        this.#numRings++;
        callback();
      }
    };
    const cancel = this.base.after(delayMs, ring);
    return () => {
      isCancelled = true;
      cancel();
    };
  }

  soon(callback: () => void): void {
    this.after(0, callback);
  }

  pause(): void {
    this.#isPaused = true;
  }

  /** What was missed happens now, in its order. */
  resume(): void {
    this.#isPaused = false;
    const missed = this.#missed;
    this.#missed = [];
    for (const ring of missed) this.base.soon(ring);
  }

  kill(): void {
    this.#isDead = true;
    this.#missed = [];
  }
}
