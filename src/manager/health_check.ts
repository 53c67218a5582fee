import type { Clock } from "../core/clock.ts";
import { LlumnixError } from "../core/errors.ts";
import type { ManagedInstance } from "./managed_instance.ts";

const INTERVAL_MS = 5_000;
/** An instance that is silent for so long hangs: its main thread does nothing that takes long. */
const ANSWER_TIMEOUT_MS = 10_000;

export interface HealthCheckConfig {
  readonly clock: Clock;
  /** Those that serve. */
  readonly instances: () => readonly ManagedInstance[];
  readonly onHanging: (instance: ManagedInstance) => void;
}

/** Finds instances that hang while their connection stays open. Those that report are not asked. */
export class HealthCheck {
  readonly #config: HealthCheckConfig;
  #cancel: (() => void) | null = null;

  constructor(config: HealthCheckConfig) {
    this.#config = config;
  }

  start(): void {
    this.#cancel = this.#config.clock.after(INTERVAL_MS, () => {
      this.start();
      for (const instance of this.#config.instances()) {
        if (!instance.wasHeard) this.#ask(instance);
        instance.wasHeard = false;
      }
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
  }

  async #ask(instance: ManagedInstance): Promise<void> {
    const { peer } = instance;
    if (peer === null || instance.isBeingAsked) return;
    instance.isBeingAsked = true;
    try {
      await peer.call("ping", { data: null }, { timeoutMs: ANSWER_TIMEOUT_MS });
    } catch (error) {
      // Any answer will do, also that it does not know the call.
      const isAnswer = !(error instanceof LlumnixError) || error.kind !== "unavailable";
      if (!isAnswer && peer.isOpen && !instance.wasHeard) this.#config.onHanging(instance);
    } finally {
      instance.isBeingAsked = false;
    }
  }
}
