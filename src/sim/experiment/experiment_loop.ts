import type { Clock } from "../../core/clock.ts";
import { settlePromises, turnEventLoop } from "../settle_promises.ts";
import { VirtualClock } from "../virtual_clock.ts";

/** Virtual time between two turns of the real event loop: for signals, and for V8's own tasks. */
const TURN_INTERVAL_MS = 1000;

/**
 * The virtual time of an experiment. Promises are let settle only where somebody says that some may,
 * and every {@linkcode TURN_INTERVAL_MS} in any case.
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
    let turnedMs = -Infinity;
    for (;;) {
      if (clock.nowMs() - turnedMs >= TURN_INTERVAL_MS) {
        turnedMs = clock.nowMs();
        await turnEventLoop();
      }
      while (this.#maySettle) {
        this.#maySettle = false;
        await settlePromises();
      }
      if (isDone()) return true;
      if (!clock.step()) return false;
    }
  }
}
