import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { MappedPool } from "../../pool/pool.ts";
import type { WriteGrants } from "../write_grants.ts";

/** A pool, and the migrations that may write to it. */
export interface OpenPool {
  readonly pool: MappedPool;
  readonly grants: WriteGrants;
}

/** The pools of one process, by the instance that owns each. */
export class PoolDirectory {
  readonly #pools = new Map<InstanceId, OpenPool>();

  add(instanceId: InstanceId, pool: OpenPool): void {
    if (this.#pools.has(instanceId)) throw new Error(`${instanceId} has a pool already`);
    this.#pools.set(instanceId, pool);
  }

  remove(instanceId: InstanceId): void {
    this.#pools.delete(instanceId);
  }

  get(instanceId: InstanceId): OpenPool | undefined {
    return this.#pools.get(instanceId);
  }
}
