import type { Clock } from "../../core/clock.ts";

/**
 * The clock of one simulated process. It may differ a little from the clocks of other processes. Its
 * timers wait while the process hangs, and never ring again once the process is dead.
 */
export class NodeClock implements Clock {
  #isPaused = false;
  #isDead = false;
  #numRings = 0;
  /** Timers that fell due during a pause. */
  #missed: (() => void)[] = [];

  /** @param skewMs how far this process's time is ahead of the simulation's */
  constructor(private readonly base: Clock, private skewMs = 0) {}

  /** Whether the process hangs or is dead, so that nothing happens in it. */
  get isStopped(): boolean {
    return this.#isPaused || this.#isDead;
  }

  /** How many timers rang. */
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

  /** The time jumps, forward or back. Timers ring when they would have. */
  step(byMs: number): void {
    this.skewMs += byMs;
  }

  pause(): void {
    this.#isPaused = true;
  }

  /** The missed timers ring now, in order. */
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
