import type { Clock } from "../../core/clock.ts";
import { settlePromises, turnEventLoop } from "./settle_promises.ts";

/** What happens at this very moment. */
interface SoonEvent {
  /** Null when it is cancelled. */
  callback: (() => void) | null;
  readonly then: (() => void) | null;
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
  // Timers, by slot: in arrays of numbers, for moving objects about a heap costs the collector.
  readonly #dueMs: number[] = [];
  /** Timers of the same time ring in the order in which they were set. */
  readonly #orders: number[] = [];
  /** Null once it has rung or is cancelled. */
  readonly #callbacks: ((() => void) | null)[] = [];
  readonly #thens: ((() => void) | null)[] = [];
  readonly #freeSlots: number[] = [];
  /** Binary heap of slots, the earliest first. */
  #heap: number[] = [];
  /** Timers in the heap: most timeouts are cancelled long before their time. */
  #numCancelled = 0;
  /** Events of this very moment in their order, from `#nextSoon` to `#endSoon`: a third of all. */
  readonly #soon: SoonEvent[] = [];
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
    const order = this.#numTimers++;
    const slot = this.#freeSlots.pop() ?? this.#callbacks.length;
    this.#dueMs[slot] = dueMs;
    this.#orders[slot] = order;
    this.#callbacks[slot] = callback;
    this.#thens[slot] = then;
    this.#push(slot);
    return () => {
      if (this.#callbacks[slot] === null || this.#orders[slot] !== order) return;
      this.#callbacks[slot] = null;
      this.#numCancelled++;
      if (this.#numCancelled > MIN_CANCELLED + this.#heap.length / 2) this.#dropCancelled();
    };
  }

  soon(callback: () => void): void {
    this.#appendSoon(callback, null);
  }

  /** Lets the next event happen; false when there is none. Promises it settles need a turn after. */
  step(): boolean {
    for (;;) {
      const heap = this.#heap;
      const isSoon = this.#nextSoon < this.#endSoon;
      // A timer that rings at this moment was set before what is soon.
      if (heap.length > 0 && (!isSoon || this.#dueMs[heap[0]] === this.#nowMs)) {
        if (this.#ring(this.#pop())) return true;
      } else if (isSoon) {
        if (happen(this.#takeSoon())) return true;
      } else return false;
    }
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

  /** Moves time on to a timer; false when it is cancelled. */
  #ring(slot: number): boolean {
    const callback = this.#callbacks[slot], then = this.#thens[slot];
    this.#callbacks[slot] = this.#thens[slot] = null;
    this.#freeSlots.push(slot);
    if (callback === null) {
      this.#numCancelled--;
      return false;
    }
    this.#nowMs = this.#dueMs[slot];
    callback();
    then?.();
    return true;
  }

  #takeSoon(): SoonEvent {
    const event = this.#soon[this.#nextSoon++];
    if (this.#nextSoon === this.#endSoon) this.#nextSoon = this.#endSoon = 0;
    return event;
  }

  #appendSoon(callback: () => void, then: (() => void) | null): SoonEvent {
    const event: SoonEvent = { callback, then };
    this.#soon[this.#endSoon++] = event; // in the place of one that has happened, if there is any
    return event;
  }

  #dropCancelled(): void {
    const left: number[] = [];
    for (const slot of this.#heap) {
      (this.#callbacks[slot] === null ? this.#freeSlots : left).push(slot);
    }
    // In order, and so a heap.
    this.#heap = left.sort((a, b) => this.#isBefore(a, b) ? -1 : 1);
    this.#numCancelled = 0;
  }

  #isBefore(a: number, b: number): boolean {
    const dueA = this.#dueMs[a], dueB = this.#dueMs[b];
    return dueA < dueB || (dueA === dueB && this.#orders[a] < this.#orders[b]);
  }

  #push(slot: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(slot);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(slot, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = slot;
  }

  /** Takes the first out of the heap, which has one. */
  #pop(): number {
    const heap = this.#heap;
    const first = heap[0], last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && this.#isBefore(heap[child + 1], heap[child])) child++;
      if (!this.#isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

/** False for an event that is cancelled. */
function happen({ callback, then }: SoonEvent): boolean {
  if (callback === null) return false;
  callback();
  then?.();
  return true;
}
