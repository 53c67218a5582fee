import assert from "node:assert/strict";
import type { MigrationReport } from "../../../src/core/protocol/migration.ts";
import { ManagedInstance } from "../../../src/manager/fleet/managed_instance.ts";
import { idleInfo } from "../support.ts";

Deno.test("managed instance: a request that left is counted out once, whether a report or the answer comes first", () => {
  const reportOf = (leftMs?: number) => ({ leftMs, blocks: 5 }) as MigrationReport;
  const source = new ManagedInstance("source", "prefill");
  const destination = new ManagedInstance("destination", "decode");
  destination.takeInfo(idleInfo("destination"));
  const move = (...leftMs: (number | undefined)[]) => {
    source.takeInfo(idleInfo("source", { leavingRequests: 3, timestampMs: 100 }));
    source.noteMoved(leftMs.map(reportOf), destination);
    return source.info!.leavingRequests;
  };
  assert.equal(move(101), 2, "its report has yet to come");
  assert.equal(move(99), 3, "its report has come");
  assert.equal(move(90, 100, 110), 2, "it came between them");
  assert.equal(move(undefined), 2);
  assert.equal(move(101, 102, 103, 104), 0);
  assert.deepEqual([destination.info!.runningRequests, destination.info!.usedBlocks], [10, 50]);
});
