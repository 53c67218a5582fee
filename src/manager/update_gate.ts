import type { Clock } from "../core/clock.ts";

/** Changes of fewer instances are taken up at once, each. */
const FREE_INSTANCES = 128;
/** Time between two updates, for each instance. An update costs some microseconds for each. */
const GAP_MS_PER_INSTANCE = 0.05;

export interface UpdateGateConfig {
  readonly clock: Clock;
  /** How many instances there are. */
  readonly numInstances: () => number;
  readonly update: () => void;
}

/**
 * Takes up changes of the instances. The first change is taken up at once; of many that follow each other,
 * as when a thousand instances join a new leader, one update takes up all of some milliseconds. Otherwise
 * the work would grow with the square of their number.
 */
export class UpdateGate {
  readonly #config: UpdateGateConfig;
  #lastMs = -Infinity;
  #cancel: (() => void) | null = null;
  #isStopped = false;

  constructor(config: UpdateGateConfig) {
    this.#config = config;
  }

  /** Something has changed. */
  note(): void {
    if (this.#cancel !== null || this.#isStopped) return;
    const { clock, numInstances } = this.#config;
    const count = numInstances();
    const gapMs = count < FREE_INSTANCES ? 0 : count * GAP_MS_PER_INSTANCE;
    const waitMs = this.#lastMs + gapMs - clock.nowMs();
    if (waitMs <= 0) this.#update();
    else this.#cancel = clock.after(waitMs, () => this.#update());
  }

  /** Takes up what has changed, if that was not done yet. @returns whether it did */
  flush(): boolean {
    if (this.#cancel === null) return false;
    this.#update();
    return true;
  }

  /** Nothing is taken up any more. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
    this.#cancel = null;
  }

  #update(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#lastMs = this.#config.clock.nowMs();
    this.#config.update();
  }
}
