/** Migration, draining and scaling by the manager, with fake instances on a virtual clock. */
import assert from "node:assert/strict";
import type { ScalingOptions } from "../../../src/core/options.ts";
import { FakeCluster, migration } from "../fake_cluster.ts";
import { managerOptions } from "../support.ts";

const options = { ...managerOptions, dispatchPolicy: "load" as const };

Deno.test("migration loop: what is uneven becomes even, and is counted and told", async () => {
  const balanced = { ...migration, enableDefrag: false, migrateOutThreshold: 11 };
  const cluster = new FakeCluster(1, {
    options: { ...options, initialInstances: 1 },
    migration: balanced,
  });
  await cluster.start();
  const requests = Array.from({ length: 8 }, (_, i) => cluster.submit(`r${i}`, 500));
  await cluster.until(() => requests.every(({ numTokens }) => numTokens > 0));
  await cluster.run(cluster.manager.addInstance());
  const sizes = () => [...cluster.instances.values()].map((instance) => instance.requests.size);
  await cluster.until(() => Math.abs(sizes()[0] - sizes()[1]) <= 2);
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
  assert.ok(requests.every(({ finish }) => finish?.reason === "length"));
  assert.ok(requests.every(({ numResumptions }) => numResumptions === 0));
  const { migrations, transferredBytes, downtimeMaxMs } = cluster.manager.statistics();
  const told = cluster.events.flatMap((event) => event.type === "migrated" ? event.report : []);
  assert.ok(migrations.committed >= 3);
  assert.equal(told.filter(({ outcome }) => outcome === "committed").length, migrations.committed);
  assert.equal(transferredBytes, 1000 * migrations.committed);
  assert.equal(downtimeMaxMs, 1);
  assert.equal(new Set(told.map(({ migrationId }) => migrationId)).size, told.length);
});

Deno.test("migration loop: without --enable-migration nothing moves", async () => {
  const cluster = new FakeCluster(2, {
    options,
    migration: { ...migration, enableMigration: false },
  });
  await cluster.start();
  const requests = Array.from({ length: 9 }, (_, i) => cluster.submit(`r${i}`));
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
  assert.equal(cluster.manager.statistics().migrations.committed, 0);
});

Deno.test("migration loop: what leaves is in a hurry where others wait", async () => {
  for (const waitingRequests of [0, 1]) {
    const cluster = new FakeCluster(1, {
      options: { ...options, initialInstances: 1 },
      migration: { ...migration, enableDefrag: false, migrateOutThreshold: 11 },
    });
    await cluster.start();
    const source = cluster.instances.get("instance-0")!;
    source.info = { waitingRequests };
    const requests = Array.from({ length: 8 }, (_, i) => cluster.submit(`r${i}`, 500));
    await cluster.until(() => requests.every(({ numTokens }) => numTokens > 0));
    await cluster.run(cluster.manager.addInstance());
    await cluster.until(() => source.orders.length > 0);
    assert.equal(source.orders[0].isUrgent, waitingRequests > 0);
  }
});

Deno.test("migration loop: a source that hangs frees its destination when the time is over", async () => {
  const cluster = new FakeCluster(3, {
    options: { ...options, initialInstances: 3 },
    migration,
    rejoinWaitMs: 100_000,
  });
  await cluster.start();
  const requests = Array.from({ length: 7 }, (_, i) => cluster.submit(`r${i}`, 3000));
  await cluster.until(() => requests.every(({ numTokens }) => numTokens > 0));
  cluster.network.block("instance-0", "manager"); // orders arrive, reports do not
  const unanswered = () => cluster.events.find(({ type }) => type === "migration_unanswered");
  await cluster.until(() => unanswered() !== undefined);
  const event = unanswered()!;
  assert.ok(event.type === "migration_unanswered" && event.sourceId === "instance-0");
  assert.equal(await cluster.run(cluster.manager.drain(event.destinationId)), true);
  cluster.network.heal("instance-0", "manager");
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded), 200_000);
  assert.ok(requests.every(({ finish }) => finish?.reason === "length"));
});

Deno.test("drain: all requests leave, none comes, then the instance is empty", async () => {
  const cluster = new FakeCluster(4, { options });
  await cluster.start();
  const requests = Array.from({ length: 5 }, (_, i) => cluster.submit(`r${i}`, 1000));
  await cluster.until(() => requests.every(({ numTokens }) => numTokens > 0));
  const { numGenerates } = cluster.instances.get("instance-0")!;
  const drained = cluster.manager.drain("instance-0");
  const late = Array.from({ length: 2 }, (_, i) => cluster.submit(`late${i}`, 1000));
  assert.equal(await cluster.run(drained), true);
  assert.equal(cluster.instances.get("instance-0")!.requests.size, 0);
  const idle = cluster.submit("while idle", 500);
  await cluster.until(() => idle.numTokens > 0);
  assert.equal(cluster.instances.get("instance-0")!.numGenerates, numGenerates);
  assert.ok(
    late.every(({ requestId }) => cluster.holders(requestId)[0].instanceId !== "instance-0"),
  );
  await cluster.until(() => [...requests, ...late].every(({ hasEnded }) => hasEnded));
  assert.ok(requests.every(({ finish }) => finish?.reason === "length"));
  assert.ok(requests.every(({ numResumptions }) => numResumptions === 0));
  cluster.manager.keepInstance("instance-0");
  const after = Array.from({ length: 2 }, (_, i) => cluster.submit(`after${i}`));
  await cluster.until(() => after.every(({ numTokens }) => numTokens > 0));
  assert.equal(cluster.instances.get("instance-0")!.requests.size, 1);
});

Deno.test("drain: with nowhere to go requests finish where they are", async () => {
  const cluster = new FakeCluster(5, { options: { ...options, initialInstances: 1 } });
  await cluster.start();
  const request = cluster.submit("a", 100);
  await cluster.until(() => request.numTokens > 0);
  const removed = cluster.manager.removeInstance("instance-0");
  assert.equal(await cluster.run(removed), true);
  assert.equal(request.finish?.reason, "length");
  assert.equal(cluster.instances.size, 0);
  await cluster.until(() => cluster.events.at(-1)?.type === "stopped");
  const { stoppedInstances, lostInstances } = cluster.manager.statistics();
  assert.deepEqual([stoppedInstances, lostInstances], [1, 0]);
});

Deno.test("drain: an instance that is kept, lost or unknown", async () => {
  const cluster = new FakeCluster(6, { options: { ...options, initialInstances: 1 } });
  await cluster.start();
  await assert.rejects(cluster.manager.drain("instance-9"), /no instance "instance-9"/);
  const request = cluster.submit("a", 1000);
  await cluster.until(() => request.numTokens > 0);
  const kept = cluster.manager.removeInstance("instance-0");
  cluster.manager.keepInstance("instance-0");
  assert.equal(await cluster.run(kept), false);
  const lost = cluster.manager.removeInstance("instance-0");
  cluster.kill("instance-0");
  assert.equal(await cluster.run(lost), false);
});

Deno.test("drain: a service whose instances all drain is not ready, and requests wait for one", async () => {
  const cluster = new FakeCluster(9, { options: { ...options, initialInstances: 2 }, migration });
  await cluster.start();
  assert.ok(cluster.client.isReady());
  for (const instanceId of ["instance-0", "instance-1"]) {
    await cluster.run(cluster.client.admin("admin_drain", { instanceId }));
  }
  await cluster.until(() => !cluster.client.isReady());
  const request = cluster.submit("a", 5);
  await cluster.run(cluster.client.admin("admin_keep", { instanceId: "instance-1" }));
  await cluster.until(() => request.hasEnded);
  assert.equal(request.finish?.reason, "length");
  assert.ok(cluster.client.isReady());
});

Deno.test("scaling: what an operator drains is not needed after all", async () => {
  const scaling: ScalingOptions = {
    enableScaling: true,
    minInstances: 1,
    maxInstances: 2,
    scalingInterval: 1,
    scalingPolicy: "avg_load",
    scaleUpThreshold: 20,
    scaleDownThreshold: 60,
  };
  const cluster = new FakeCluster(8, {
    options: { ...options, initialInstances: 2 },
    scaling,
    migration,
  });
  await cluster.start();
  await assert.rejects(
    cluster.run(cluster.client.admin("admin_add", null)),
    /there are already 2 instances, and --max-instances is 2/,
  );
  await cluster.run(cluster.client.admin("admin_drain", { instanceId: "instance-0" }));
  const requests = Array.from({ length: 9 }, (_, i) => cluster.submit(`r${i}`, 500));
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded), 120_000);
  assert.ok(cluster.instances.has("instance-0"));
  assert.ok(cluster.instances.has("instance-2"), "one came in its place");
  assert.equal(cluster.instances.get("instance-0")!.numGenerates, 0);
  // Nor does it hold up what scaling does else.
  await cluster.until(() => cluster.instances.size === 2);
});

Deno.test("scaling: up under load, down without it, within limits, losing nothing", async () => {
  const scaling: ScalingOptions = {
    enableScaling: true,
    minInstances: 1,
    maxInstances: 3,
    scalingInterval: 1,
    scalingPolicy: "avg_load",
    scaleUpThreshold: 20,
    scaleDownThreshold: 60,
  };
  const cluster = new FakeCluster(7, {
    options: { ...options, initialInstances: 1 },
    scaling,
    migration,
  });
  await cluster.start();
  let most = 0;
  const requests = Array.from({ length: 9 }, (_, i) => cluster.submit(`r${i}`, 500 + 100 * i));
  await cluster.until(() => {
    most = Math.max(most, cluster.instances.size);
    assert.ok(cluster.instances.size <= 3);
    return requests.every(({ hasEnded }) => hasEnded);
  }, 120_000);
  assert.equal(most, 3);
  await cluster.until(() => cluster.instances.size === 1);
  assert.ok(requests.every(({ finish }) => finish?.reason === "length"));
  assert.ok(requests.every(({ numResumptions }) => numResumptions === 0));
  assert.ok(cluster.client.isReady());
  // One that is lost is replaced.
  cluster.kill([...cluster.instances.keys()][0]);
  await cluster.until(() => cluster.manager.instances().length === 1);
});

Deno.test("scaling: the instance that goes is the one with the least to give away", async () => {
  const scaling: ScalingOptions = {
    enableScaling: true,
    minInstances: 2,
    maxInstances: 3,
    scalingInterval: 5,
    scalingPolicy: "avg_load",
    scaleUpThreshold: 1,
    scaleDownThreshold: 2,
  };
  const cluster = new FakeCluster(8, {
    options: { ...options, dispatchPolicy: "rr", initialInstances: 3 },
    scaling,
    migration: { ...migration, enableMigration: false },
  });
  await cluster.start();
  const lengths = [3000, 1, 3000]; // one on each
  const requests = lengths.map((length, i) => cluster.submit(`r${i}`, length));
  await cluster.until(() => cluster.instances.size === 2);
  assert.deepEqual([...cluster.instances.keys()].sort(), ["instance-0", "instance-2"]);
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
  assert.ok(requests.every(({ numResumptions }) => numResumptions === 0));
});
