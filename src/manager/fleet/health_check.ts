import type { Clock } from "../../core/clock.ts";
import { LlumnixError } from "../../core/errors.ts";
import type { ManagedInstance } from "./managed_instance.ts";

/** Checks within the time after which a silent instance is given up. */
const TICKS = 4;
/** The check that pings: the first one before which nothing was heard for a whole interval. */
const PING_TICK = 2;

export interface HealthCheckConfig {
  readonly clock: Clock;
  /** An instance that is silent for this long hangs: nothing on its main thread takes long. */
  readonly timeoutMs: number;
  readonly instances: () => readonly ManagedInstance[];
  readonly onHanging: (instance: ManagedInstance) => void;
}

/**
 * Finds instances that hang while their connection stays open. An instance of which nothing was heard
 * between two checks gets a ping; if it stays silent for TICKS checks, it hangs. An instance that reports
 * gets none.
 *
 * Silence is counted in checks, not by the clock. A manager whose own process was paused therefore
 * does not take its instances for silent when it goes on.
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
      else if (silentChecks === PING_TICK) this.#ask(instance);
    }
  }

  async #ask(instance: ManagedInstance): Promise<void> {
    const { peer } = instance;
    try {
      await peer?.call("ping", { data: null }, { timeoutMs: this.#config.timeoutMs });
    } catch (error) {
      // Any answer shows that it lives, even an error that says it does not know the call.
      if (!(error instanceof LlumnixError) || error.kind === "unavailable") return;
    }
    if (instance.peer === peer) instance.noteHeard();
  }
}
