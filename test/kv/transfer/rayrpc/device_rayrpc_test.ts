/** The rayrpc backend between pools of a GPU, where there is one. `scripts/gpu_verify.sh` runs it. */
import { openBus } from "../../../../src/bus/open_bus.ts";
import { realClock } from "../../../../src/core/clock.ts";
import { MigrationPeers } from "../../../../src/instance/llumlet/migration_peers.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import { RayRpcBackend } from "../../../../src/kv/transfer/rayrpc/rayrpc_backend.ts";
import {
  type BackendEnd,
  type BackendPair,
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";
import { HostCudaPool, missing } from "../../pool/cuda/host_cuda_pool.ts";

async function newEnd(limits: TransferLimits) {
  const bus = openBus({ clusterKey: "insecure" }),
    pool = new HostCudaPool(suiteLayout, SUITE_BLOCKS);
  const links = new MigrationPeers(bus, realClock, () => {});
  const backend = new RayRpcBackend({ pool, limits, clock: realClock, links });
  const listener = await bus.listen("tcp:127.0.0.1:0", { calls: backend.calls });
  return { pool, backend, listener };
}

async function newPair(limits: TransferLimits): Promise<BackendPair> {
  const source = await newEnd(limits), destination = await newEnd(limits);
  return {
    source,
    destination,
    addressOf: (end: BackendEnd) => (end === source ? source : destination).listener.address,
    nowMs: () => realClock.nowMs(),
    settle: (promise) => promise,
    async close() {
      for (const { backend, listener, pool } of [source, destination]) {
        await backend.close();
        await listener.close();
        await pool.close();
      }
    },
  };
}

testMigrationBackend({
  name: "rayrpc, pools of this host's device",
  hasData: true,
  skipped: missing ?? undefined,
  open: newPair,
});
