import { type Clock, sleep } from "../../core/clock.ts";
import { UsageError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import { settingsDifference } from "../../core/served_settings.ts";
import type { Fleet } from "./fleet.ts";

const POLL_MS = 100;

export interface RecoveryConfig {
  readonly clock: Clock;
  readonly fleet: Fleet;
  /** How long instances of the previous manager have for their join. */
  readonly joinWaitMs: number;
  /** An instance of the previous manager that has not joined by then hangs, and is killed. */
  readonly orphanMs: number;
  /** Instances that there should be. */
  readonly numWanted: () => number;
}

/** Takes over the instances of a previous manager, which serve on without one. */
export class Recovery {
  readonly #config: RecoveryConfig;
  #isWaiting = false;
  /** Instances of the previous manager that run, and are killed unless they join. */
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
   * @param survivors all that may join; null: not known
   * @throws {UsageError} some serve something else than this manager: they serve on without it
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

  /** Kills the instances that have not joined: nothing would end them any more. */
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
    this.#survivors = []; // they serve on, and are no orphans
    const [{ instanceId }] = refused;
    const pids = refused.map(({ instanceId, pid }) => `${instanceId} (process ${pid})`);
    throw new UsageError(
      `instances of a manager before this one still serve: ${
        settingsDifference(refused[0], settings, instanceId, "this manager")
      }. Start it with what they have, or end them first: ${pids.join(", ")}`,
    );
  }

  #killOrphans(): void {
    for (const instanceId of this.#survivors) this.#config.fleet.killOrphan(instanceId);
    this.#survivors = [];
  }
}
