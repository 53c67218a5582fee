import type { InstanceId } from "../../core/protocol/generate.ts";
import type { JoinRequest } from "../../core/protocol/membership.ts";

/** Processes of older instances ended long ago. */
const MAX_REMEMBERED = 1_000;

/**
 * Instances that the manager has lost. Their processes may still run somewhere, and must not join
 * again; another process may take the name.
 */
export class Tombstones {
  readonly #names = new Set<InstanceId>();
  /** The key of a name without an incarnation stands for every process that served under the name. */
  readonly #keys = new Set<string>();

  /** @param incarnation undefined: not known */
  add(instanceId: InstanceId, incarnation?: string): void {
    remember(this.#names, instanceId);
    remember(this.#keys, keyOf(instanceId, incarnation));
  }

  hasName(instanceId: InstanceId): boolean {
    return this.#names.has(instanceId);
  }

  /** Whether the process that asks to join is a lost instance. */
  includes({ instanceId, incarnation, isRunning = false }: JoinRequest): boolean {
    const isNew = incarnation !== undefined && !isRunning;
    if (!isNew && this.#keys.has(keyOf(instanceId))) return true;
    return this.#keys.has(keyOf(instanceId, incarnation));
  }
}

function keyOf(instanceId: InstanceId, incarnation?: string): string {
  return JSON.stringify([instanceId, incarnation]);
}

function remember(set: Set<string>, key: string): void {
  set.add(key);
  if (set.size > MAX_REMEMBERED) set.delete(set.values().next().value!);
}
