import { type Clock, sleep } from "../../core/clock.ts";
import { UsageError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import type { Fleet } from "./fleet.ts";

const POLL_MS = 100;

export interface RecoveryConfig {
  readonly clock: Clock;
  readonly fleet: Fleet;
  /** Time for the instances of the previous manager to join. */
  readonly joinWaitMs: number;
  /** Time after which an instance of the previous manager that has not joined is killed: it hangs. */
  readonly orphanMs: number;
  /** How many instances there should be. */
  readonly numWanted: () => number;
}

/**
 * Takes over the instances of a previous manager. They have served on without one
 * (src/manager/README.md, "A manager that starts again").
 */
export class Recovery {
  readonly #config: RecoveryConfig;
  #isWaiting = false;
  /** Running instances of the previous manager: orphans unless they join. */
  #survivors: readonly InstanceId[] = [];
  #cancelOrphanCheck: (() => void) | null = null;

  constructor(config: RecoveryConfig) {
    this.#config = config;
  }

  /** Instances of the previous manager may still join. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /**
   * Gives the instances of the previous manager time to join.
   * @param survivors ids of all instances that may join; null: not known
   * @throws {UsageError} some serve something else than this manager: they are not killed
   */
  async awaitJoins(survivors: readonly InstanceId[] | null): Promise<void> {
    const { clock, fleet, joinWaitMs, orphanMs } = this.#config;
    this.#survivors = survivors ?? [];
    this.#cancelOrphanCheck = clock.after(orphanMs, () => this.#killOrphans());
    fleet.useFreshNames();
    this.#isWaiting = true;
    const deadlineMs = clock.nowMs() + joinWaitMs;
    while (this.#mayMoreJoin(survivors) && clock.nowMs() < deadlineMs) {
      await sleep(clock, Math.min(joinWaitMs, POLL_MS));
    }
    this.#isWaiting = false;
    this.#checkRefused();
  }

  /** Kills the orphans: otherwise they would outlive the service. */
  stop(): void {
    this.#cancelOrphanCheck?.();
    this.#killOrphans();
  }

  #mayMoreJoin(survivors: readonly InstanceId[] | null): boolean {
    const { fleet, numWanted } = this.#config;
    const serving = new Set(fleet.serving.map(({ instanceId }) => instanceId));
    if (serving.size >= numWanted()) return false;
    const refused = new Set(fleet.refused.map(({ instanceId }) => instanceId));
    return survivors === null ||
      survivors.some((instanceId) => !serving.has(instanceId) && !refused.has(instanceId));
  }

  /** @throws {UsageError} this manager cannot replace the instances that it refused */
  #checkRefused(): void {
    const { refused, settings } = this.#config.fleet;
    if (refused.length === 0 || !settings) return;
    this.#survivors = []; // they go on serving, for a manager with their settings
    const [{ instanceId }] = refused;
    const pids = refused.map(({ instanceId, pid }) => `${instanceId} (process ${pid})`);
    throw new UsageError(
      `instances of a previous manager still serve: ${
        settingsDifference(refused[0], settings, instanceId, "this manager")
      }. Start the manager with their settings, or end them first: ${pids.join(", ")}`,
    );
  }

  #killOrphans(): void {
    for (const instanceId of this.#survivors) this.#config.fleet.killOrphan(instanceId);
    this.#survivors = [];
  }
}
