import type { Clock } from "../../core/clock.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";

/** More than a cluster has; beyond them the one that was heard first is forgotten. */
const MAX_INSTANCES = 4_096;

/** The instances that a candidate has heard lately: see {@linkcode ManagerContacts}. */
export class Audience {
  readonly #clock: Clock;
  readonly #periodMs: number;
  /** When each was last heard, in that order. */
  readonly #heardMs = new Map<InstanceId, number>();

  /** @param periodMs see {@linkcode hearingPeriodMs} */
  constructor(clock: Clock, periodMs: number) {
    this.#clock = clock;
    this.#periodMs = periodMs;
  }

  note(instanceId: InstanceId): void {
    this.#heardMs.delete(instanceId);
    this.#heardMs.set(instanceId, this.#clock.nowMs());
    if (this.#heardMs.size > MAX_INSTANCES) this.#heardMs.delete(this.#first!);
  }

  /** How many were heard within the last period. */
  get size(): number {
    const fromMs = this.#clock.nowMs() - this.#periodMs;
    while (this.#first !== undefined && this.#heardMs.get(this.#first)! < fromMs) {
      this.#heardMs.delete(this.#first);
    }
    return this.#heardMs.size;
  }

  get #first(): InstanceId | undefined {
    return this.#heardMs.keys().next().value;
  }
}
