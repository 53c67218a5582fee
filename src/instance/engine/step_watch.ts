import type { Clock } from "../../core/clock.ts";

/** Looks at a step within the time that it may take whatever its tokens. */
const TICKS = 4;

export interface StepWatchConfig {
  readonly clock: Clock;
  /** Infinity: steps may take any time. */
  readonly stepTimeoutMs: number;
  /** In addition, for each token of a step. */
  readonly stepTimeoutPerTokenMs: number;
  /** The running step does not end: it had all its time, and up to a quarter of `stepTimeoutMs` more. */
  readonly onHang: (limitMs: number) => void;
}

/**
 * Finds steps that hang: whatever runs them never answers, while this thread goes on.
 *
 * Time is counted in ticks and not by the clock, as in `HealthCheck`: when the whole process was
 * stopped for a while, so was the step. Costs a step next to nothing, for the timer runs on while
 * there are steps.
 */
export class StepWatch {
  readonly #config: StepWatchConfig;
  /** Of the running step; null between steps. */
  #limitMs: number | null = null;
  /** From the step's first tick on; null before it, which comes at any time after the step began. */
  #leftMs: number | null = null;
  #cancel: (() => void) | null = null;

  constructor(config: StepWatchConfig) {
    this.#config = config;
  }

  /** @param tokens that the step computes */
  begin(tokens: number): void {
    const { stepTimeoutMs } = this.#config;
    if (stepTimeoutMs === Infinity) return;
    this.#limitMs = this.#limitOf(tokens);
    this.#leftMs = null;
    if (this.#cancel === null) this.#schedule(stepTimeoutMs / TICKS);
  }

  /** After so long at the latest a step of so many tokens is found to hang. */
  longestMs(tokens: number): number {
    return this.#limitOf(tokens) + this.#config.stepTimeoutMs / TICKS;
  }

  end(): void {
    this.#limitMs = null;
  }

  /** Nothing is watched any more. */
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
