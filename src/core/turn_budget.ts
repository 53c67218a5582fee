import { setImmediate } from "node:timers";

/**
 * Spreads work over turns of the event loop, first come first served, so that everything else waits no
 * longer than a turn's share of it takes.
 *
 * A turn here ends with a pause of a timer's length. While the loop never has to wait, Deno 2.9 asks for
 * network events only every 61 turns (tokio's event interval): beside work of 5 ms that goes on by
 * `setImmediate`, a request took 500 ms; beside such that goes on by timers, 5 ms.
 */
export class TurnBudget {
  #left: number;
  #waiting: { readonly size: number; readonly start: () => void }[] = [];
  #endIsScheduled = false;

  /**
   * @param perTurn work of one turn; a larger piece gets a turn of its own
   * @param nextTurn calls back when other work had its chance
   */
  constructor(
    readonly perTurn: number,
    private readonly nextTurn: (begin: () => void) => unknown = afterPause,
  ) {
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
    this.nextTurn(() => this.#beginTurn());
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

/** The timer starts behind the work of this turn, else it would be due already when that is done. */
function afterPause(begin: () => void): void {
  setImmediate(() => setTimeout(begin, 0));
}
