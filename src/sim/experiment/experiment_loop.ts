import { setImmediate } from "node:timers";
import type { Clock } from "../../core/clock.ts";
import { VirtualClock } from "../virtual_clock.ts";

/** Promises that nobody announces settle within this time. */
const MAX_UNSETTLED_MS = 20;

/**
 * The virtual time of an experiment. Letting promises settle costs a turn of the real event loop, as
 * much as an engine step, so it happens only where somebody says that some may settle, and every
 * {@linkcode MAX_UNSETTLED_MS} in any case.
 */
export class ExperimentLoop {
  readonly clock = new VirtualClock();
  #maySettle = true;

  /** Promises have settled, or may have. */
  readonly noteSettled = (): void => {
    this.#maySettle = true;
  };

  /** The clock for code that waits for promises whenever its timers ring, while `isWaiting` says so. */
  settlingClock(isWaiting: () => boolean = () => true): Clock {
    const { clock } = this;
    return {
      nowMs: () => clock.nowMs(),
      after: (delayMs, callback) =>
        clock.after(delayMs, () => {
          callback();
          if (isWaiting()) this.#maySettle = true;
        }),
      soon: (callback) => clock.soon(callback),
    };
  }

  /**
   * Lets time go on until `isDone`, or for ever.
   * @returns whether it came true before nothing was left to happen
   */
  async runUntil(isDone: () => boolean): Promise<boolean> {
    const { clock } = this;
    let settledMs = clock.nowMs();
    for (;;) {
      if (this.#maySettle || clock.nowMs() - settledMs >= MAX_UNSETTLED_MS) {
        this.#maySettle = false;
        settledMs = clock.nowMs();
        await settlePromises();
        continue;
      }
      if (isDone()) return true;
      if (!clock.step()) return false;
    }
  }
}

/** A turn of the real event loop: all promises that can settle have settled after it. */
function settlePromises(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
