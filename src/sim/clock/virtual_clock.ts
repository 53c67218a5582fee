import type { Clock } from "../../core/clock.ts";
import { settlePromises, turnEventLoop } from "./settle_promises.ts";

/** An event at the current time. */
interface SoonEvent {
  /** Null when it is cancelled. */
  callback: (() => void) | null;
  readonly then: (() => void) | null;
}

/** The heap may always hold this many cancelled timers; beyond, they are limited to half of it. */
const MIN_CANCELLED = 64;

/**
 * A clock that stands still while there is work to do and then jumps to the next event. A program that
 * runs on it depends on its input alone, and takes only the time that its computing takes.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  #numTimers = 0;
  // Timers, by slot. Arrays of numbers, because objects that move about a heap cost the collector time.
  readonly #dueMs: number[] = [];
  /** Timers of the same time ring in the order in which they were set. */
  readonly #orders: number[] = [];
  /** Null once it has rung or is cancelled. */
  readonly #callbacks: ((() => void) | null)[] = [];
  readonly #thens: ((() => void) | null)[] = [];
  readonly #freeSlots: number[] = [];
  /** Binary heap of slots, the earliest first. */
  #heap: number[] = [];
  /** Cancelled timers in the heap. Most timeouts are cancelled long before their time. */
  #numCancelled = 0;
  /** Events at the current time, in order, from `#nextSoon` to `#endSoon`. A third of all events. */
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

  /**
   * Runs the next event.
   * Promises that it settles run their reactions only after {@linkcode settlePromises}.
   * @returns false if there is no event
   */
  step(): boolean {
    for (;;) {
      const heap = this.#heap;
      const isSoon = this.#nextSoon < this.#endSoon;
      // A timer that is due now was set before every `soon` event.
      if (heap.length > 0 && (!isSoon || this.#dueMs[heap[0]] === this.#nowMs)) {
        if (this.#ring(this.#pop())) return true;
      } else if (isSoon) {
        if (happen(this.#takeSoon())) return true;
      } else return false;
    }
  }

  /**
   * Runs events, and lets promises settle after each, until `isDone` or no event is left.
   * @returns whether `isDone` became true
   */
  async runUntil(isDone: () => boolean): Promise<boolean> {
    await turnEventLoop();
    while (!isDone()) {
      if (!this.step()) return false;
      await settlePromises();
    }
    return true;
  }

  /** Advances the time to a timer and runs it; false if the timer is cancelled. */
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
    this.#soon[this.#endSoon++] = event; // reuses the slot of an event that has run, if there is one
    return event;
  }

  #dropCancelled(): void {
    const left: number[] = [];
    for (const slot of this.#heap) {
      (this.#callbacks[slot] === null ? this.#freeSlots : left).push(slot);
    }
    // A sorted array is a heap.
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

  /** Takes the first slot out of the heap, which must not be empty. */
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

/** Runs an event; false if it is cancelled. */
function happen({ callback, then }: SoonEvent): boolean {
  if (callback === null) return false;
  callback();
  then?.();
  return true;
}
