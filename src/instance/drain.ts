import type { Clock } from "../core/clock.ts";

/** A request that was dispatched to an instance before it left has arrived, or was refused, by then. */
const SETTLED_MS = 1_000;
const POLL_MS = 100;

export interface DrainConfig {
  readonly clock: Clock;
  /** What is left after it goes on elsewhere by resumption. */
  readonly timeoutMs: number;
  /** No request is here, or on the way to or from here. */
  readonly isEmpty: () => boolean;
  /** Tells the manager; false when the instance is to stay. Never rejects. */
  readonly ask: () => Promise<boolean>;
  readonly setAccepting: (isAccepting: boolean) => void;
  readonly onDone: () => void;
}

/**
 * The orderly end of an instance whose process was asked to stop: no new requests come, those that are
 * here are moved to other instances by the manager, or finish.
 */
export class Drain {
  readonly #config: DrainConfig;
  /** Of the leave that is under way; it ends when this changes. */
  #attempt = 0;
  #isUnderWay = false;
  #cancelPoll: (() => void) | null = null;

  constructor(config: DrainConfig) {
    this.#config = config;
  }

  get isUnderWay(): boolean {
    return this.#isUnderWay;
  }

  start(): void {
    const { clock, setAccepting, timeoutMs } = this.#config;
    this.#isUnderWay = true;
    setAccepting(false);
    const nowMs = clock.nowMs();
    this.#pollUntil(nowMs + Math.min(SETTLED_MS, timeoutMs), nowMs + timeoutMs);
    this.ask();
  }

  /** Tells a manager, also one that is new. */
  async ask(): Promise<void> {
    const attempt = this.#attempt;
    if (!await this.#config.ask() && attempt === this.#attempt) this.cancel();
  }

  /** It is needed after all. */
  cancel(): void {
    if (!this.#isUnderWay) return;
    this.stop();
    this.#config.setAccepting(true);
  }

  /** Nothing follows. */
  stop(): void {
    this.#isUnderWay = false;
    this.#attempt++;
    this.#cancelPoll?.();
  }

  #pollUntil(settledMs: number, deadlineMs: number): void {
    const { clock, isEmpty, onDone } = this.#config;
    this.#cancelPoll = clock.after(POLL_MS, () => {
      const nowMs = clock.nowMs();
      const isDone = nowMs >= deadlineMs || (nowMs >= settledMs && isEmpty());
      if (isDone) onDone();
      else this.#pollUntil(settledMs, deadlineMs);
    });
  }
}
