import type { Clock } from "../core/clock.ts";
import { settlePromises, turnEventLoop } from "./settle_promises.ts";

/** What happens at some moment. */
interface Event {
  /** Null once it has happened or is cancelled. */
  callback: (() => void) | null;
  /** Called when it has happened. */
  readonly then: (() => void) | null;
}

/** What happens later. */
interface Timer extends Event {
  readonly dueMs: number;
  /** Timers of the same time ring in the order in which they were set. */
  readonly order: number;
}

/** So many cancelled timers may wait for their time whatever else does. */
const MIN_CANCELLED = 64;

/**
 * A clock that stands still while anything is left to do and then jumps to the next event. What runs
 * on it depends on nothing but its input, and takes no longer than its computing.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  #numTimers = 0;
  /** Binary heap, the earliest first. */
  #heap: Timer[] = [];
  /** Timers in the heap: most timeouts are cancelled long before their time. */
  #numCancelled = 0;
  /** Events of this very moment in their order, from `#nextSoon` to `#endSoon`: a third of all. */
  readonly #soon: Event[] = [];
  #nextSoon = 0;
  #endSoon = 0;

  constructor(startMs = 0) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  /** @param then is called after `callback` */
  after(delayMs: number, callback: () => void, then: (() => void) | null = null): () => void {
    const dueMs = this.#nowMs + Math.max(0, delayMs);
    if (dueMs === this.#nowMs) {
      const event = this.#appendSoon(callback, then);
      return () => event.callback = null;
    }
    const timer: Timer = { callback, then, dueMs, order: this.#numTimers++ };
    this.#push(timer);
    return () => {
      if (timer.callback === null) return;
      timer.callback = null;
      this.#numCancelled++;
      if (this.#numCancelled > MIN_CANCELLED + this.#heap.length / 2) this.#dropCancelled();
    };
  }

  soon(callback: () => void): void {
    this.#appendSoon(callback, null);
  }

  /** Lets the next event happen; false when there is none. Promises it settles need a turn after. */
  step(): boolean {
    for (let event = this.#take(); event !== null; event = this.#take()) {
      const { callback } = event;
      if (callback === null) continue;
      event.callback = null;
      callback();
      event.then?.();
      return true;
    }
    return false;
  }

  /**
   * Lets events happen, and the promises between them settle, until `isDone` or none is left.
   * @returns whether `isDone` came true
   */
  async runUntil(isDone: () => boolean): Promise<boolean> {
    await turnEventLoop();
    while (!isDone()) {
      if (!this.step()) return false;
      await settlePromises();
    }
    return true;
  }

  /** The next event, which may be a cancelled one; moves time on to it. */
  #take(): Event | null {
    const heap = this.#heap;
    const isSoon = this.#nextSoon < this.#endSoon;
    // A timer that rings at this moment was set before it.
    if (heap.length > 0 && (!isSoon || heap[0].dueMs === this.#nowMs)) return this.#takeTimer();
    if (!isSoon) return null;
    const event = this.#soon[this.#nextSoon++];
    if (this.#nextSoon === this.#endSoon) this.#nextSoon = this.#endSoon = 0;
    return event;
  }

  #appendSoon(callback: () => void, then: (() => void) | null): Event {
    const event: Event = { callback, then };
    this.#soon[this.#endSoon++] = event; // in the place of one that has happened, if there is any
    return event;
  }

  #takeTimer(): Timer {
    const timer = this.#pop();
    if (timer.callback === null) this.#numCancelled--;
    else this.#nowMs = timer.dueMs;
    return timer;
  }

  #dropCancelled(): void {
    // In order, and so a heap.
    this.#heap = this.#heap.filter(({ callback }) => callback !== null).sort(compareTurns);
    this.#numCancelled = 0;
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(timer);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (compareTurns(timer, heap[parent]) > 0) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = timer;
  }

  /** Takes the first out of the heap, which has one. */
  #pop(): Timer {
    const heap = this.#heap;
    const first = heap[0], last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && compareTurns(heap[child + 1], heap[child]) < 0) child++;
      if (compareTurns(heap[child], last) > 0) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function compareTurns(a: Timer, b: Timer): number {
  return a.dueMs - b.dueMs || a.order - b.order;
}
