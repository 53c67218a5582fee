/** The suite of KV pools on a GPU, where there is one. `scripts/gpu_verify.sh` runs it. */
import { POOL_BLOCKS, poolLayout, testKvPool } from "../../../conformance/kv_pool.ts";
import { HostCudaPool, missing } from "./host_cuda_pool.ts";

if (missing === null) {
  testKvPool({ name: "this host's device", open: () => new HostCudaPool(poolLayout, POOL_BLOCKS) });
  testKvPool({
    name: "this host's device, small bounce buffers",
    open: () => new HostCudaPool(poolLayout, POOL_BLOCKS, 1000),
  });
} else {
  Deno.test({ name: `KvPool this host's device (skipped: ${missing})`, ignore: true, fn() {} });
}
