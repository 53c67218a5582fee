import assert from "node:assert/strict";
import type { MigrationEnded } from "../../../src/core/protocol/monitoring.ts";
import { ClusterCounters } from "../../../src/manager/monitoring/cluster_counters.ts";

function migration(backend: string, more: Partial<MigrationEnded> = {}): MigrationEnded {
  return {
    type: "migration_ended",
    migrationId: "m",
    sourceId: "a",
    destinationId: "b",
    backend,
    requestId: "r",
    outcome: "committed",
    phase: "commit",
    reason: "",
    lengthTokens: 10,
    stages: 1,
    blocks: 1,
    bytes: 2e6,
    transferMs: 1,
    downtimeMs: 4,
    totalMs: 9,
    ...more,
  };
}

Deno.test("cluster counters: bytes, times and speed are those of committed migrations", () => {
  const counters = new ClusterCounters();
  counters.count(migration("gloo"));
  counters.count(migration("gloo", { transferMs: 0, bytes: 0 })); // it waited, and had no blocks
  counters.count(migration("gloo", { outcome: "aborted_source", phase: "copying" }));
  const { migrations, moves: [gloo, ...others] } = counters.snapshot();
  assert.deepEqual(migrations.map(({ outcome, count }) => [outcome, count]), [
    ["committed", 2],
    ["aborted_source", 1],
  ]);
  assert.deepEqual([others, gloo.bytes, gloo.tokens], [[], 2e6, 20]);
  assert.deepEqual([gloo.downtimeSeconds.sum, gloo.totalSeconds.sum], [0.008, 0.018]);
  assert.equal(gloo.bytesPerSecond.sum, 2e9);
  assert.equal(gloo.bytesPerSecond.counts.reduce((sum, count) => sum + count), 1);
});

Deno.test("cluster counters: names of backends are bounded", () => {
  const counters = new ClusterCounters();
  for (let i = 0; i < 1_000; i++) counters.count(migration(`backend-${i}`));
  const { migrations, moves } = counters.snapshot();
  assert.deepEqual([migrations.length, moves.length], [17, 17]);
  assert.equal(migrations.find(({ backend }) => backend === "other")!.count, 984);
});

Deno.test("cluster counters: scaling counts instances, up and down", () => {
  const counters = new ClusterCounters();
  for (const change of [2, -1, 1]) counters.count({ type: "scaled", change });
  assert.deepEqual(counters.snapshot().scaling, { up: 3, down: 1 });
});
