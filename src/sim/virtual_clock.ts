import type { Clock } from "../core/clock.ts";
import { settlePromises, turnEventLoop } from "./settle_promises.ts";

interface Event {
  readonly dueMs: number;
  /** Events of the same time happen in the order in which they were asked for. */
  readonly order: number;
  /** Null once cancelled. */
  callback: (() => void) | null;
}

/** So many cancelled events may wait for their time whatever else does. */
const MIN_CANCELLED = 64;

/**
 * A clock that stands still while anything is left to do and then jumps to the next event. What runs
 * on it depends on nothing but its input, and takes no longer than its computing.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  #numEvents = 0;
  /** Binary heap, the earliest first. */
  #heap: Event[] = [];
  /** Of the heap: most timeouts are cancelled long before their time. */
  #numCancelled = 0;
  /** Events of this very moment in their order, the next at `#nextSoon`: half of all. */
  readonly #soon: Event[] = [];
  #nextSoon = 0;

  constructor(startMs = 0) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const dueMs = this.#nowMs + Math.max(0, delayMs);
    const event: Event = { dueMs, order: this.#numEvents++, callback };
    if (dueMs === this.#nowMs) {
      this.#soon.push(event);
      return () => event.callback = null;
    }
    this.#push(event);
    return () => {
      if (event.callback === null) return;
      event.callback = null;
      this.#numCancelled++;
      if (this.#numCancelled > MIN_CANCELLED + this.#heap.length / 2) this.#dropCancelled();
    };
  }

  soon(callback: () => void): void {
    this.#soon.push({ dueMs: this.#nowMs, order: this.#numEvents++, callback });
  }

  /** Lets the next event happen; false when there is none. Promises it settles need a turn after. */
  step(): boolean {
    for (let event = this.#take(); event !== null; event = this.#take()) {
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
    await turnEventLoop();
    while (!isDone()) {
      if (!this.step()) return false;
      await settlePromises();
    }
    return true;
  }

  /** The next event, which may be a cancelled one. */
  #take(): Event | null {
    const soon = this.#soon, heap = this.#heap;
    if (this.#nextSoon === soon.length) return this.#pop();
    // What is in the heap and due at this moment was asked for before this moment.
    if (heap.length > 0 && heap[0].dueMs === this.#nowMs) return this.#pop();
    const event = soon[this.#nextSoon++];
    if (this.#nextSoon === soon.length) this.#nextSoon = soon.length = 0;
    return event;
  }

  #dropCancelled(): void {
    // In order, and so a heap.
    this.#heap = this.#heap.filter(({ callback }) => callback !== null).sort(compareTurns);
    this.#numCancelled = 0;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (compareTurns(event, heap[parent]) > 0) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event | null {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined) return null;
    const first = heap.length === 0 ? last : heap[0];
    if (first.callback === null) this.#numCancelled--;
    if (first === last) return first;
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

function compareTurns(a: Event, b: Event): number {
  return a.dueMs - b.dueMs || a.order - b.order;
}
