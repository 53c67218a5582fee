import assert from "node:assert/strict";
import { presets } from "../../../src/sim/experiment/presets.ts";
import { readPlan } from "../../../src/cli/simulate/plan.ts";

for (const { name, clusters, workloads, numRequests } of presets) {
  Deno.test(`preset ${name} can be run`, () => {
    const { comparison } = readPlan(["--preset", name, "--seeds", "2"]);
    assert.deepEqual(comparison.clusters.map((one) => one.name), clusters.map((one) => one.name));
    assert.equal(comparison.workloads.length, workloads.length);
    assert.deepEqual(comparison.seeds, [1, 2]);
    for (const workload of comparison.workloads) assert.equal(workload.numRequests, numRequests);
    assert.equal(new Set(comparison.workloads.map((one) => one.name)).size, workloads.length);
  });
}

Deno.test("the serving preset is the paper's cluster", () => {
  const { comparison: { clusters } } = readPlan(["--preset", "osdi24-serving"]);
  const [llumnix, ...others] = clusters;
  assert.equal(llumnix.manager.initialInstances, 16);
  assert.equal(llumnix.migration.enableMigration, true);
  assert.equal(llumnix.transfer.maxStages, 3);
  for (const { migration } of others) assert.equal(migration.enableMigration, false);
});
