import type { Clock } from "../../core/clock.ts";
import { LlumnixError } from "../../core/errors.ts";
import type { ManagedInstance } from "./managed_instance.ts";

/** Checks within the time after which an instance that says nothing is given up. */
const TICKS = 4;

export interface HealthCheckConfig {
  readonly clock: Clock;
  /** An instance that is silent for so long hangs: its main thread does nothing that takes long. */
  readonly timeoutMs: number;
  readonly instances: () => readonly ManagedInstance[];
  readonly onHanging: (instance: ManagedInstance) => void;
}

/**
 * Finds instances that hang while their connection stays open. Those that report are not asked.
 *
 * Silence is counted in checks and not by the clock: a manager that was itself stopped for a while
 * finds no instance silent for longer than it has looked.
 */
export class HealthCheck {
  readonly #config: HealthCheckConfig;
  #cancel: (() => void) | null = null;

  constructor(config: HealthCheckConfig) {
    this.#config = config;
  }

  start(): void {
    const { clock, timeoutMs } = this.#config;
    this.#cancel = clock.after(timeoutMs / TICKS, () => {
      this.start();
      this.#check();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
  }

  #check(): void {
    for (const instance of this.#config.instances()) {
      if (instance.peer === null) continue;
      const silentChecks = instance.noteSilence();
      if (silentChecks >= TICKS) this.#config.onHanging(instance);
      else if (silentChecks === 1) this.#ask(instance);
    }
  }

  async #ask(instance: ManagedInstance): Promise<void> {
    const { peer } = instance;
    try {
      await peer?.call("ping", { data: null }, { timeoutMs: this.#config.timeoutMs });
    } catch (error) {
      // Any answer will do, also that it does not know the call.
      if (!(error instanceof LlumnixError) || error.kind === "unavailable") return;
    }
    if (instance.peer === peer) instance.noteHeard();
  }
}
