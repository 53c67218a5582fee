import assert from "node:assert/strict";
import { managerOptions } from "./support.ts";
import { withFakeCluster } from "./fake_cluster.ts";
import { ReportPace } from "../../src/manager/report_pace.ts";

Deno.test("report pace: up to 256 instances report at every polling interval", () => {
  const pace = new ReportPace(50);
  for (const numInstances of [0, 1, 256]) assert.equal(pace.update(numInstances), false);
  assert.deepEqual([pace.intervalMs, pace.isUsual], [50, true]);
});

Deno.test("report pace: more instances report less often, and are told when it matters", () => {
  const pace = new ReportPace(50);
  const told: number[] = [];
  for (let numInstances = 1; numInstances <= 1024; numInstances++) {
    if (pace.update(numInstances)) told.push(pace.intervalMs);
  }
  assert.ok(told.length < 10, `${told}`);
  assert.ok(Math.abs(pace.intervalMs - 200) <= 50, `${pace.intervalMs}`);
  assert.equal(pace.isUsual, false);
  for (let numInstances = 1024; numInstances >= 100; numInstances--) pace.update(numInstances);
  assert.deepEqual([pace.intervalMs, pace.isUsual], [50, true]);
});

Deno.test("report pace: a long polling interval stays", () => {
  const pace = new ReportPace(1_000);
  assert.equal(pace.update(4_096), false);
  assert.equal(pace.intervalMs, 1_000);
});

Deno.test("report pace: a manager tells all instances, also those that were there before", () =>
  withFakeCluster(
    400,
    async (cluster) => {
      await cluster.pass(1_000);
      const told = [...cluster.instances.values()].map(({ toldIntervalMs }) => toldIntervalMs);
      assert.equal(told.length, 400);
      const [interval] = told;
      assert.ok(interval !== null && interval > 60 && interval < 100, `${interval}`);
      assert.ok(told.every((one) => one === interval), `${new Set(told)}`);
    },
    { options: { ...managerOptions, initialInstances: 400, pollingInterval: 0.05 } },
  ));
