import { type Clock, realClock, sleep } from "./clock.ts";

/** Wrong secrets from one place within {@linkcode WINDOW_MS} after which its further ones wait. */
export const FREE_ATTEMPTS = 10;
const WINDOW_MS = 60_000;
const PENALTY_MS = 1_000;
/** Attempts that may wait at the same time, from all places. */
const MAX_WAITING = 32;
/** Places that are remembered; of more, the oldest is forgotten. */
const MAX_PLACES = 1024;

/**
 * Slows down the guessing of secrets: after ten wrong ones within a minute, each attempt from that place
 * waits for a second before it is looked at.
 */
export class WrongAttempts {
  readonly #places = new Map<string, { count: number; readonly sinceMs: number }>();
  #waiting = 0;

  constructor(
    private readonly clock: Clock = realClock,
    private readonly penaltyMs = PENALTY_MS,
  ) {}

  /** Resolves when an attempt may be looked at: true, or false if too many wait already. */
  async admit(place: string): Promise<boolean> {
    if ((this.#recent(place)?.count ?? 0) < FREE_ATTEMPTS) return true;
    if (this.#waiting >= MAX_WAITING) return false;
    this.#waiting++;
    await sleep(this.clock, this.penaltyMs);
    this.#waiting--;
    return true;
  }

  /** Counts a wrong attempt. @returns the wrong attempts of the last minute from that place */
  note(place: string): number {
    const attempts = this.#recent(place) ?? { count: 0, sinceMs: this.clock.nowMs() };
    attempts.count++;
    this.#places.delete(place);
    this.#places.set(place, attempts);
    if (this.#places.size > MAX_PLACES) this.#places.delete(this.#places.keys().next().value!);
    return attempts.count;
  }

  #recent(place: string) {
    const attempts = this.#places.get(place);
    return attempts && this.clock.nowMs() - attempts.sinceMs < WINDOW_MS ? attempts : undefined;
  }
}
