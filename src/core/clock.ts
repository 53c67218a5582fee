import { setImmediate } from "node:timers";

/**
 * Time as the rest of the system sees it. Decisions never read a clock of their own, so that a whole
 * cluster can run on a virtual one.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch, monotonic within one process. */
  nowMs(): number;
  /** Calls `callback` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, callback: () => void): () => void;
  /** Calls `callback` in a later turn of the event loop, before time goes on. */
  soon(callback: () => void): void;
}

/** The clock of the machine. */
export const realClock: Clock = {
  nowMs: () => performance.timeOrigin + performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
  soon(callback) {
    setImmediate(callback);
  },
};

/** Resolves after `delayMs` on `clock`. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => clock.after(delayMs, resolve));
}
