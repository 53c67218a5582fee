import { Random } from "../../src/core/random.ts";
import { ArrayKvPool } from "../../src/kv/array_kv_pool.ts";
import { SimNetwork } from "../../src/sim/sim_bus.ts";
import { SimFabric } from "../../src/sim/sim_fabric.ts";
import { VirtualClock } from "../../src/sim/virtual_clock.ts";
import {
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../conformance/migration_backend.ts";

testMigrationBackend({
  name: "simulated",
  hasData: true,
  open({ bufferBlocks, numLayers }) {
    const clock = new VirtualClock();
    const random = new Random(1);
    const network = new SimNetwork({ clock, random, meanDelayMs: 1, keepAliveMs: 1000 });
    const limits = {
      migrationBufferBlocks: bufferBlocks,
      migrationNumLayers: numLayers,
      lastStageMaxBlocks: 1,
      maxStages: 1,
    };
    const fabric = new SimFabric(network, limits, () => {});
    const end = (name: string) => {
      const pool = new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
      return { pool, backend: fabric.open(network.addNode(name), pool) };
    };
    const source = end("source"), destination = end("destination");
    return Promise.resolve({
      source,
      destination,
      nowMs: () => clock.nowMs(),
      async settle<T>(promise: Promise<T>): Promise<T> {
        let isSettled = false;
        const settle = () => isSettled = true;
        promise.then(settle, settle);
        await clock.runUntil(() => isSettled);
        return promise;
      },
      async close() {
        await source.backend.close();
        await destination.backend.close();
      },
    });
  },
});
