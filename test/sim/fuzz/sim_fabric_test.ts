import assert from "node:assert/strict";
import type { MigrationGroup } from "../../../src/core/protocol/migration.ts";
import { Random } from "../../../src/core/random.ts";
import { ArrayKvPool } from "../../../src/kv/pool/array_kv_pool.ts";
import { SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { SimFabric } from "../../../src/sim/fuzz/sim_fabric.ts";
import { SimGroups } from "../../../src/sim/fuzz/sim_group.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import {
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../conformance/migration_backend.ts";

const group: MigrationGroup = {
  secret: "s",
  generation: 1,
  members: ["source", "destination"].map((node, rank) => {
    return { instanceId: node, rank, endpoint: { node } };
  }),
};

/** Processes whose pools are joined by a simulated fabric. */
class World {
  readonly clock = new VirtualClock();
  readonly network = new SimNetwork({
    clock: this.clock,
    random: new Random(1),
    meanDelayMs: 1,
    keepAliveMs: 1000,
  });
  readonly fabric: SimFabric;

  constructor(isGrouped: boolean, bufferBlocks = 4, numLayers = 1) {
    const limits = {
      migrationBufferBlocks: bufferBlocks,
      migrationNumLayers: numLayers,
      lastStageMaxBlocks: 1,
      maxStages: 1,
      migrationCrossover: "0",
    };
    const faults = { initTimeoutMs: 500, slowShare: 0, failedShare: 0, untilMs: 0 };
    const groups = isGrouped ? new SimGroups(this.network, faults) : null;
    this.fabric = new SimFabric(this.network, limits, () => {}, groups);
  }

  open(name: string) {
    const pool = new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
    return { pool, backend: this.fabric.open(this.network.addNode(name), pool) };
  }

  async settle<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settle = () => isSettled = true;
    promise.then(settle, settle);
    await this.clock.runUntil(() => isSettled);
    return promise;
  }
}

for (const isGrouped of [false, true]) {
  testMigrationBackend({
    name: isGrouped ? "simulated, in a group" : "simulated",
    hasData: true,
    async open({ bufferBlocks, numLayers }) {
      const world = new World(isGrouped, bufferBlocks, numLayers);
      const source = world.open("source"), destination = world.open("destination");
      const joins = [source, destination].map(({ backend }) => backend.join?.(group) ?? []);
      assert.deepEqual(await world.settle(Promise.all(joins)), [[], []]);
      return {
        source,
        destination,
        nowMs: () => world.clock.nowMs(),
        settle: (promise) => world.settle(promise),
        async close() {
          await source.backend.close();
          await destination.backend.close();
        },
      };
    },
  });
}

Deno.test("simulated group: who is not there, or in another group, is a failed peer", async () => {
  const world = new World(true);
  const { backend } = world.open("source");
  assert.ok(!backend.isReady);
  const gone = await world.settle(backend.join!(group));
  assert.match(gone[0].reason, /nobody listens at destination/);
  const other = world.open("destination");
  const joins = [backend.join!(group), other.backend.join!({ ...group, secret: "t" })];
  const [failed] = await world.settle(Promise.all(joins));
  assert.deepEqual(failed, [{
    instanceId: "destination",
    reason: "destination did not answer, or is not in that group",
  }]);
  assert.equal(world.clock.nowMs(), 500);
  assert.ok(backend.isReady);
});

Deno.test("simulated group: nothing is sent to who is not in the group of now", async () => {
  const world = new World(true);
  const { backend } = world.open("source");
  world.open("destination");
  const alone = { ...group, generation: 2, members: group.members.slice(0, 1) };
  assert.deepEqual(await world.settle(backend.join!(alone)), []);
  const sending = backend.send({
    migrationId: "m",
    destination: { instanceId: "destination", address: "inproc:destination" },
    endpoint: { node: "destination" },
    sourceBlocks: [0],
    destinationBlocks: [0],
    deadlineMs: 1_000,
  }, new AbortController().signal);
  await assert.rejects(world.settle(sending), /destination is not in the migration group/);
});
