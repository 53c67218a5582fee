/** Pools across the threads of a process: a description is sent, and the other thread opens it. */
import { AccountedKvPool } from "./accounted_kv_pool.ts";
import { HostKvPool } from "./host_kv_pool.ts";
import type { DevicePool, KvPool, PoolDescription } from "./pool.ts";

type DeviceDescription = Extract<PoolDescription, { memory: "device" }>;

/** Opens the pools of a device in the thread that calls it. */
type OpenDevicePool = (description: DeviceDescription) => Promise<DevicePool>;

/** What opens the pools of a device, by its name; a line each, which imports lazily. */
const devicePools: ReadonlyMap<string, OpenDevicePool> = new Map([
  [
    "cuda",
    async (description) =>
      (await import("./cuda/open_cuda_kv_pool.ts")).openCudaKvPool(description),
  ],
]);

/** What {@linkcode openPool} needs: structured cloning keeps it as it is. */
export function describePool(pool: KvPool): PoolDescription {
  const { layout, numBlocks } = pool;
  switch (pool.memory) {
    case "host":
      return { memory: "host", layout, numBlocks, address: pool.address };
    case "none":
      return { memory: "none", layout, numBlocks };
    case "device": {
      const { address, device, ordinal, others } = pool;
      return { memory: "device", layout, numBlocks, address, device, ordinal, others };
    }
  }
}

/**
 * Opens a pool in this thread. The memory stays with the thread that allocated it.
 * @throws {Error} no pool is registered for the device
 */
export async function openPool(
  description: PoolDescription,
  register = devicePools,
): Promise<KvPool> {
  const { layout, numBlocks } = description;
  switch (description.memory) {
    case "host":
      return new HostKvPool(description.address, layout, numBlocks);
    case "none":
      return new AccountedKvPool(layout, numBlocks);
    case "device": {
      const open = register.get(description.device);
      if (!open) throw new Error(`no KV pool is registered for the device ${description.device}`);
      return await open(description);
    }
  }
}
