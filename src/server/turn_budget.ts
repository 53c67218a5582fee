import { setImmediate } from "node:timers";

/**
 * Spreads work over turns of the event loop, first come first served, so that everything else waits no
 * longer than a turn's share of it takes.
 */
export class TurnBudget {
  #left: number;
  #waiting: { readonly size: number; readonly start: () => void }[] = [];
  #endIsScheduled = false;

  /** @param perTurn work of one turn; a larger piece gets a turn of its own */
  constructor(readonly perTurn: number) {
    this.#left = perTurn;
  }

  /** Resolves when work of this size may be done, in the turn in which it resolves. */
  take(size: number): Promise<void> {
    this.#scheduleEnd();
    if (this.#waiting.length > 0 || !this.#spend(size)) {
      return new Promise((start) => this.#waiting.push({ size, start }));
    }
    return Promise.resolve();
  }

  #spend(size: number): boolean {
    if (size > this.#left && this.#left < this.perTurn) return false;
    this.#left -= size;
    return true;
  }

  #scheduleEnd(): void {
    if (this.#endIsScheduled) return;
    this.#endIsScheduled = true;
    setImmediate(() => this.#beginTurn());
  }

  #beginTurn(): void {
    this.#endIsScheduled = false;
    this.#left = this.perTurn;
    const waiting = this.#waiting;
    let started = 0;
    while (started < waiting.length && this.#spend(waiting[started].size)) {
      waiting[started++].start();
    }
    this.#waiting = waiting.slice(started);
    if (started > 0) this.#scheduleEnd();
  }
}
