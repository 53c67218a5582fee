import type { Clock } from "../../core/clock.ts";
import { type ErrorRecord, isForTheUser, toErrorRecord } from "../../core/errors.ts";

/** The pause after a failed start doubles, from the first value to the second. */
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 30_000;
/** An instance that served for less time than this may be lost again for the same reason. */
const STABLE_MS = 10_000;
/** Failed starts in a row, over about a minute, after which no instance is expected to serve. */
const MAX_FAILURES = 8;

export interface ReplacementConfig {
  readonly clock: Clock;
  /** How many more instances should start. */
  readonly missing: () => number;
  /** Whether any instance serves or starts, or will be able to once an operator or a host says so. */
  readonly isAnyLeft: () => boolean;
  /** Starts an instance; resolves when it serves. */
  readonly start: () => Promise<unknown>;
  readonly onFailure: (reason: string, pauseMs: number) => void;
  /** No more starts are tried. */
  readonly onGiveUp: (reason: string) => void;
}

/**
 * Starts an instance in place of each lost one: at once if the lost one had served for a while, else
 * after a pause, which doubles while starts fail.
 *
 * Gives up once no instance serves and none can start: a start failed with an error that only the user
 * can fix (no such model, too little memory), or MAX_FAILURES starts in a row failed. See
 * src/manager/README.md, "Health and replacement".
 */
export class Replacement {
  readonly #config: ReplacementConfig;
  /** Failed starts in a row; starts at the same time count once. */
  #numFailures = 0;
  #numAttempts = 0;
  /** Attempts up to this one are in `#numFailures`. Instances that start together fail together. */
  #countedAttempts = 0;
  #dueMs = Infinity;
  #cancel: (() => void) | null = null;
  #isStopped = false;

  constructor(config: ReplacementConfig) {
    this.#config = config;
  }

  /** An instance was lost that had served for this long. */
  noteLoss(servedMs: number): void {
    this.#scheduleIn(servedMs >= STABLE_MS ? 0 : FIRST_PAUSE_MS);
  }

  /**
   * Room for instances has come. Starts the missing ones, unless a start is due anyway.
   * @param isNew a host has joined, or is kept: what failed before says nothing of it
   */
  noteRoom(isNew: boolean): void {
    if (isNew) {
      this.#numFailures = 0;
      this.#scheduleIn(0);
    } else if (this.#dueMs === Infinity) this.#scheduleIn(this.#pauseMs);
  }

  /** Replaces no more instances. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }

  /** Of several due times the earliest counts. */
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
    const pauseMs = this.#pauseMs;
    this.#config.onFailure(message, pauseMs);
    this.#scheduleIn(pauseMs);
  }

  get #pauseMs(): number {
    return Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, this.#numFailures - 1));
  }
}
