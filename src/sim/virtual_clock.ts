import { setImmediate } from "node:timers";
import type { Clock } from "../core/clock.ts";

interface Event {
  readonly dueMs: number;
  /** Events of the same time happen in the order in which they were asked for. */
  readonly order: number;
  /** Null once cancelled. */
  callback: (() => void) | null;
}

/**
 * A clock that stands still while anything is left to do and then jumps to the next event. What runs
 * on it depends on nothing but its input, and takes no longer than its computing.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  #numEvents = 0;
  /** Binary heap, the earliest first. */
  readonly #heap: Event[] = [];

  constructor(startMs = 0) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const dueMs = this.#nowMs + Math.max(0, delayMs);
    const event: Event = { dueMs, order: this.#numEvents++, callback };
    this.#push(event);
    return () => event.callback = null;
  }

  soon(callback: () => void): void {
    this.after(0, callback);
  }

  /** Lets the next event happen; false when there is none. Promises it settles need a turn after. */
  step(): boolean {
    for (let event = this.#pop(); event !== null; event = this.#pop()) {
      const { callback } = event;
      if (callback === null) continue;
      this.#nowMs = event.dueMs;
      event.callback = null;
      callback();
      return true;
    }
    return false;
  }

  /**
   * Lets events happen, and the promises between them settle, until `isDone` or none is left.
   * @returns whether `isDone` came true
   */
  async runUntil(isDone: () => boolean): Promise<boolean> {
    await settlePromises();
    while (!isDone()) {
      if (!this.step()) return false;
      await settlePromises();
    }
    return true;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event | null {
    const heap = this.#heap;
    const first = heap[0] ?? null;
    const last = heap.pop();
    if (last === undefined || last === first) return first;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}

/** A turn of the real event loop: all promises that can settle have settled after it. */
function settlePromises(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
