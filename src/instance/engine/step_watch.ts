import type { Clock } from "../../core/clock.ts";

/** Looks at a running step in each of these parts of `stepTimeoutMs`. */
const TICKS = 4;

export interface StepWatchConfig {
  readonly clock: Clock;
  /** Time that a step may take; Infinity: any time. */
  readonly stepTimeoutMs: number;
  /** Added to that for each token of the step. */
  readonly stepTimeoutPerTokenMs: number;
  /** The running step has had all its time, and up to a quarter of `stepTimeoutMs` more. */
  readonly onHang: (limitMs: number) => void;
}

/**
 * Finds steps that hang: the executor never answers, while this thread works.
 *
 * Time is counted in timer ticks and not by the clock, as in `HealthCheck`: if the whole process
 * was stopped for a while, the step was too. It costs a step next to nothing, because one timer
 * runs on from step to step.
 */
export class StepWatch {
  readonly #config: StepWatchConfig;
  /** Time that the running step may take; null between steps. */
  #limitMs: number | null = null;
  /** Time left to the running step, counted from its first tick; null before that tick. */
  #leftMs: number | null = null;
  #cancel: (() => void) | null = null;

  constructor(config: StepWatchConfig) {
    this.#config = config;
  }

  /** A step begins. @param tokens number of tokens that it computes */
  begin(tokens: number): void {
    const { stepTimeoutMs } = this.#config;
    if (stepTimeoutMs === Infinity) return;
    this.#limitMs = this.#limitOf(tokens);
    this.#leftMs = null;
    if (this.#cancel === null) this.#schedule(stepTimeoutMs / TICKS);
  }

  /** The time after which a hanging step of this many tokens is found at the latest. */
  longestMs(tokens: number): number {
    return this.#limitOf(tokens) + this.#config.stepTimeoutMs / TICKS;
  }

  /** The running step has ended. */
  end(): void {
    this.#limitMs = null;
  }

  /** Stops the timer. */
  close(): void {
    this.end();
    this.#cancel?.();
    this.#cancel = null;
  }

  #limitOf(tokens: number): number {
    const { stepTimeoutMs, stepTimeoutPerTokenMs } = this.#config;
    return stepTimeoutMs + tokens * stepTimeoutPerTokenMs;
  }

  #schedule(tickMs: number): void {
    this.#cancel = this.#config.clock.after(tickMs, () => this.#tick(tickMs));
  }

  #tick(tickMs: number): void {
    this.#cancel = null;
    const limitMs = this.#limitMs;
    if (limitMs === null) return; // the next step starts the timer again
    this.#leftMs = this.#leftMs === null ? limitMs : this.#leftMs - tickMs;
    if (this.#leftMs > 0) {
      return this.#schedule(Math.min(this.#config.stepTimeoutMs / TICKS, this.#leftMs));
    }
    this.end();
    this.#config.onHang(limitMs);
  }
}
