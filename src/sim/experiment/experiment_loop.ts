import type { Clock } from "../../core/clock.ts";
import { settlePromises, turnEventLoop } from "../clock/settle_promises.ts";
import { VirtualClock } from "../clock/virtual_clock.ts";

/** Virtual time between two turns of the real event loop: for signals, and for V8's own tasks. */
const TURN_INTERVAL_MS = 5000;

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
    const then = () => {
      if (isWaiting()) this.#maySettle = true;
    };
    return {
      nowMs: () => clock.nowMs(),
      after: (delayMs, callback) => clock.after(delayMs, callback, then),
      soon: (callback) => clock.soon(callback),
    };
  }

  /**
   * Lets time go on until `isDone`, or for ever.
   * @returns whether it came true before nothing was left to happen
   */
  async runUntil(isDone: () => boolean): Promise<boolean> {
    const { clock } = this;
    let turnMs = -Infinity;
    for (;;) {
      if (clock.nowMs() >= turnMs) {
        turnMs = clock.nowMs() + TURN_INTERVAL_MS;
        await turnEventLoop();
      }
      while (this.#maySettle) {
        this.#maySettle = false;
        await settlePromises();
      }
      if (isDone()) return true;
      if (!this.#runEvents(turnMs, isDone)) return false;
    }
  }

  /**
   * Lets events happen, one or more, until promises may settle, the time has come, or `isDone`: apart
   * from {@linkcode runUntil}, for V8 makes faster code of functions that are not asynchronous.
   * @returns whether there was one
   */
  #runEvents(untilMs: number, isDone: () => boolean): boolean {
    const { clock } = this;
    do {
      if (!clock.step()) return false;
    } while (!this.#maySettle && clock.nowMs() < untilMs && !isDone());
    return true;
  }
}
