import type { Clock } from "../core/clock.ts";

/** By then, a request that was dispatched before the drain began has arrived or was refused. */
const SETTLED_MS = 1_000;
const POLL_MS = 100;

export interface DrainConfig {
  readonly clock: Clock;
  /** When the drain ends although requests are left: their API servers resume them elsewhere. */
  readonly timeoutMs: number;
  /** The instance has no request, and none is moving to or from it. */
  readonly isEmpty: () => boolean;
  /** Tells the manager that the instance drains. False: it has to serve on. Never rejects. */
  readonly askManager: () => Promise<boolean>;
  readonly setAccepting: (isAccepting: boolean) => void;
  readonly onDone: () => void;
}

/**
 * The orderly end of an instance whose process was asked to stop. The instance refuses new
 * requests; the manager moves its requests to other instances, or they finish here.
 */
export class InstanceDrain {
  readonly #config: DrainConfig;
  /** Counts drains, so that a late answer of the manager does not cancel the next drain. */
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
    this.tellManager();
  }

  /** Tells the manager; called again when another manager has taken over. */
  async tellManager(): Promise<void> {
    const attempt = this.#attempt;
    if (!await this.#config.askManager() && attempt === this.#attempt) this.cancel();
  }

  /** The instance is needed after all and accepts requests again. */
  cancel(): void {
    if (!this.#isUnderWay) return;
    this.stop();
    this.#config.setAccepting(true);
  }

  /** Ends the drain; `onDone` is not called. */
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
