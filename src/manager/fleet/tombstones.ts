import type { InstanceId } from "../../core/protocol/generate.ts";
import type { JoinRequest } from "../../core/protocol/membership.ts";

/** Older ones have long ended. */
const MAX_REMEMBERED = 1_000;

/** Instances that a manager has had and lost: they are not to come back, others of their names may. */
export class FormerInstances {
  readonly #names = new Set<InstanceId>();
  /** A name alone is that of any process that has served under it. */
  readonly #givenUp = new Set<string>();

  /** @param incarnation undefined: not known */
  add(instanceId: InstanceId, incarnation?: string): void {
    remember(this.#names, instanceId);
    remember(this.#givenUp, keyOf(instanceId, incarnation));
  }

  hasName(instanceId: InstanceId): boolean {
    return this.#names.has(instanceId);
  }

  /** Whoever would join is one of them. */
  includes({ instanceId, incarnation, isRunning = false }: JoinRequest): boolean {
    const isNew = incarnation !== undefined && !isRunning;
    if (!isNew && this.#givenUp.has(keyOf(instanceId))) return true;
    return this.#givenUp.has(keyOf(instanceId, incarnation));
  }
}

function keyOf(instanceId: InstanceId, incarnation?: string): string {
  return JSON.stringify([instanceId, incarnation]);
}

function remember(set: Set<string>, key: string): void {
  set.add(key);
  if (set.size > MAX_REMEMBERED) set.delete(set.values().next().value!);
}
