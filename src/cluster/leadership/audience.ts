import type { Clock } from "../../core/clock.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";

/** More than a cluster has; beyond them the one that was heard first is forgotten. */
const MAX_INSTANCES = 4_096;

/** The instances that a candidate has heard lately: see {@linkcode Beacon}. */
export class Audience {
  readonly #clock: Clock;
  readonly #leaseMs: number;
  /** When each was last heard, in that order. */
  readonly #heardMs = new Map<InstanceId, number>();

  constructor(clock: Clock, leaseMs: number) {
    this.#clock = clock;
    this.#leaseMs = leaseMs;
  }

  note(instanceId: InstanceId): void {
    this.#heardMs.delete(instanceId);
    this.#heardMs.set(instanceId, this.#clock.nowMs());
    if (this.#heardMs.size > MAX_INSTANCES) this.#heardMs.delete(this.#first!);
  }

  /** How many were heard within the last lease. */
  get size(): number {
    const fromMs = this.#clock.nowMs() - this.#leaseMs;
    while (this.#first !== undefined && this.#heardMs.get(this.#first)! < fromMs) {
      this.#heardMs.delete(this.#first);
    }
    return this.#heardMs.size;
  }

  get #first(): InstanceId | undefined {
    return this.#heardMs.keys().next().value;
  }
}
