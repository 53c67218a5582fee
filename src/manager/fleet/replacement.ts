import type { Clock } from "../../core/clock.ts";
import { type ErrorRecord, isForTheUser, toErrorRecord } from "../../core/errors.ts";

/** The pause after a failed start doubles from the first to the last. */
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 30_000;
/** What is lost sooner may well be lost again. */
const STABLE_MS = 10_000;
/** Failed starts in a row, over a minute all in all, after which nothing will ever serve. */
const MAX_FAILURES = 8;

export interface ReplacementConfig {
  readonly clock: Clock;
  /** Instances that are wanted and neither there nor on the way. */
  readonly missing: () => number;
  /** Some instance serves, or may soon. */
  readonly isAnyLeft: () => boolean;
  /** Starts one; resolves when it serves. */
  readonly start: () => Promise<unknown>;
  readonly onFailure: (reason: string, pauseMs: number) => void;
  /** Nothing is tried any more. */
  readonly onGiveUp: (reason: string) => void;
}

/**
 * Starts an instance in place of each that was lost: at once where that had served for a while, else
 * after a pause, which doubles while starts fail.
 *
 * It gives up when nothing serves and nothing will: the start failed for what only the user can put
 * right (no such model, too little memory), or failed MAX_FAILURES times in a row.
 */
export class Replacement {
  readonly #config: ReplacementConfig;
  /** Of starts, in a row. */
  #numFailures = 0;
  #numAttempts = 0;
  /** Those that start together fail together: attempts up to this one have been counted. */
  #countedAttempts = 0;
  #dueMs = Infinity;
  #cancel: (() => void) | null = null;
  #isStopped = false;

  constructor(config: ReplacementConfig) {
    this.#config = config;
  }

  /** Something that had served was lost. */
  noteLoss(servedMs: number): void {
    this.#scheduleIn(servedMs >= STABLE_MS ? 0 : FIRST_PAUSE_MS);
  }

  /** Nothing is replaced any more. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }

  /** The earliest of several times counts. */
  #scheduleIn(pauseMs: number): void {
    const { clock } = this.#config;
    const dueMs = clock.nowMs() + pauseMs;
    if (this.#isStopped || dueMs >= this.#dueMs) return;
    this.#cancel?.();
    this.#dueMs = dueMs;
    this.#cancel = clock.after(pauseMs, () => {
      this.#dueMs = Infinity;
      const attempt = ++this.#numAttempts;
      for (let missing = this.#config.missing(); missing > 0; missing--) this.#start(attempt);
    });
  }

  async #start(attempt: number): Promise<void> {
    try {
      await this.#config.start();
      this.#numFailures = 0;
    } catch (error) {
      if (!this.#isStopped) this.#fail(attempt, toErrorRecord(error));
    }
  }

  #fail(attempt: number, { kind, message }: ErrorRecord): void {
    if (attempt > this.#countedAttempts) {
      this.#countedAttempts = this.#numAttempts;
      this.#numFailures++;
    }
    const isHopeless = isForTheUser(kind) || this.#numFailures >= MAX_FAILURES;
    if (isHopeless && !this.#config.isAnyLeft()) {
      this.stop();
      this.#config.onGiveUp(message);
      return;
    }
    const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.#numFailures - 1));
    this.#config.onFailure(message, pauseMs);
    this.#scheduleIn(pauseMs);
  }
}
