import { openCuda } from "../../../../ffi/cuda/open.ts";
import type { DevicePool, PoolDescription } from "../pool.ts";
import { CudaKvPool } from "./cuda_kv_pool.ts";

/** Opens a pool of a CUDA device in this thread. */
export function openCudaKvPool(
  { layout, numBlocks, address, ordinal, others }: Extract<PoolDescription, { memory: "device" }>,
): DevicePool {
  return new CudaKvPool({ cuda: openCuda(), layout, numBlocks, address, ordinal, others });
}
