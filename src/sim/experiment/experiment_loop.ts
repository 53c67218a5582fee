import type { Clock } from "../../core/clock.ts";
import { settlePromises, turnEventLoop } from "../clock/settle_promises.ts";
import { VirtualClock } from "../clock/virtual_clock.ts";

/** Virtual time between two turns of the real event loop, which handles signals and V8's own tasks. */
const TURN_INTERVAL_MS = 5000;

/**
 * The virtual time of an experiment. For speed, the loop lets promises settle only after a call of
 * `noteSettled`, and every {@linkcode TURN_INTERVAL_MS} in any case.
 */
export class ExperimentLoop {
  readonly clock = new VirtualClock();
  #maySettle = true;

  /** Tells the loop that promises may have settled. */
  readonly noteSettled = (): void => {
    this.#maySettle = true;
  };

  /** A clock for code whose timers settle promises, which it does only while `isWaiting` is true. */
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
   * Runs events until `isDone`, or until none is left.
   * @returns whether `isDone` became true
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
   * Runs one or more events, until promises may settle, `untilMs` or `isDone`. Not part of `runUntil`,
   * because V8 makes faster code of functions that are not asynchronous.
   * @returns false if there was no event
   */
  #runEvents(untilMs: number, isDone: () => boolean): boolean {
    const { clock } = this;
    do {
      if (!clock.step()) return false;
    } while (!this.#maySettle && clock.nowMs() < untilMs && !isDone());
    return true;
  }
}
