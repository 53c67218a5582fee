import assert from "node:assert/strict";
import { realClock } from "../../../../src/core/clock.ts";
import { AccountedKvPool } from "../../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import type { KvPool } from "../../../../src/kv/pool/pool.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import {
  type BackendPair,
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";
import { testHungDevice } from "../../../conformance/hung_device.ts";
import { LossyLink } from "../../../conformance/lossy_link.ts";
import {
  NETWORK_BLOCKS,
  networkLayout,
  testNetworkBackend,
} from "../../../conformance/network_backend.ts";
import { missing, SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";
import { ExampleDevicePool } from "../../pool/example_device_pool.ts";
import { form, openEnd } from "./support.ts";

async function openPair(limits: TransferLimits, newPool: () => KvPool) {
  const source = openEnd("source", { limits, pool: newPool() });
  const destination = openEnd("destination", { limits, pool: newPool() });
  assert.deepEqual(await form([source, destination]), [[], []]);
  return {
    source,
    destination,
    instanceIdOf: (end) => end === source ? "source" : "destination",
    nowMs: () => realClock.nowMs(),
    settle: (promise) => promise,
    async close() {
      for (const { backend, pool } of [source, destination]) {
        await backend.close();
        if (pool.memory === "device") await pool.close();
      }
    },
  } satisfies BackendPair;
}

testMigrationBackend({
  name: "grpc",
  hasData: true,
  open: (limits) => openPair(limits, () => new ArrayKvPool(suiteLayout, SUITE_BLOCKS)),
});
testMigrationBackend({
  name: "grpc, pools of a device",
  hasData: true,
  open: (limits) => openPair(limits, () => new ExampleDevicePool(suiteLayout, SUITE_BLOCKS)),
});
testMigrationBackend({
  name: "grpc, pools of CUDA",
  hasData: true,
  skipped: missing ?? undefined,
  open: (limits) => openPair(limits, () => new SoftwareCudaPool(suiteLayout, SUITE_BLOCKS)),
});
testMigrationBackend({
  name: "grpc, without memory",
  hasData: false,
  open: (limits) => openPair(limits, () => new AccountedKvPool(suiteLayout, SUITE_BLOCKS)),
});

testNetworkBackend({
  name: "grpc",
  async open() {
    const limits = { bufferBlocks: 8, numLayers: 2 };
    const pair = await openPair(limits, () => new ArrayKvPool(networkLayout, NETWORK_BLOCKS));
    const { endpoint } = pair.destination.backend;
    const link = new LossyLink(endpoint.port);
    Object.assign(endpoint, { port: link.port });
    return {
      ...pair,
      link,
      async close() {
        link.close();
        await pair.close();
      },
    };
  },
});

testHungDevice({
  name: "grpc",
  skipped: missing ?? undefined,
  async open() {
    const limits = { bufferBlocks: 8, numLayers: suiteLayout.numLayers };
    const pool = new SoftwareCudaPool(suiteLayout, SUITE_BLOCKS, 1000, 200);
    const pools: KvPool[] = [new ArrayKvPool(suiteLayout, SUITE_BLOCKS), pool];
    const pair = await openPair(limits, () => pools.shift()!);
    return {
      ...pair,
      async close() {
        await pool.close(); // ends the write that hangs, for which the backend waits
        await pair.close();
      },
    };
  },
});
