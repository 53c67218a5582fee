import type { InstanceId } from "../../../core/messages.ts";
import type { KvPool } from "../../pool.ts";

/** The pools of one process, by the instance that they belong to. */
export class PoolDirectory {
  readonly #pools = new Map<InstanceId, KvPool>();

  add(instanceId: InstanceId, pool: KvPool): void {
    if (this.#pools.has(instanceId)) throw new Error(`${instanceId} has a pool already`);
    this.#pools.set(instanceId, pool);
  }

  remove(instanceId: InstanceId): void {
    this.#pools.delete(instanceId);
  }

  get(instanceId: InstanceId): KvPool | undefined {
    return this.#pools.get(instanceId);
  }
}
