/** A manager that gives its place to another, which replaces the instances; on a virtual clock. */
import assert from "node:assert/strict";
import type { Rollout } from "../../../src/core/protocol/upgrade.ts";
import { type FakeCluster, migration, withFakeCluster } from "../fake_cluster.ts";

const WAIT_MS = 30_000;

const servingIds = ({ manager }: FakeCluster) =>
  manager.instances().map(({ instanceId }) => instanceId);

/** The manager gives way to another one, which knows the instances that run. */
async function succeed(cluster: FakeCluster, numWanted?: number): Promise<void> {
  const survivors = servingIds(cluster);
  await cluster.run(cluster.manager.handOver(WAIT_MS));
  await cluster.run(cluster.manager.stop()); // its process ends in order, which stops nothing
  await cluster.pass(100); // until the ends of its connections have arrived
  cluster.killManager();
  await cluster.restartManager(survivors, numWanted);
}

async function replaceAll(cluster: FakeCluster): Promise<{ order: string[]; status: Rollout }> {
  const order: string[] = [];
  const rollout = cluster.manager.replaceTakenOver((instanceId) => order.push(instanceId));
  const status = await cluster.run(rollout.done);
  assert.deepEqual(status, rollout.status);
  return { order, status };
}

Deno.test("handover: instances serve on, and every request ends as if nothing had been", () =>
  withFakeCluster(3, async (cluster) => {
    const requests = Array.from({ length: 12 }, (_, i) => cluster.submit(`r${i}`, 400));
    await cluster.until(() => requests.every(({ numTokens }) => numTokens > 5));
    const before = servingIds(cluster);
    await succeed(cluster);
    assert.deepEqual(servingIds(cluster), before);
    await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
    assert.ok(
      requests.every(({ finish, numResumptions }) =>
        finish?.reason === "length" && numResumptions === 0
      ),
    );
    assert.deepEqual([...cluster.exits], []);
  }));

Deno.test("rollout: all instances are replaced, one at a time, and their requests move", () =>
  withFakeCluster(3, async (cluster) => {
    const requests = Array.from({ length: 12 }, (_, i) => cluster.submit(`r${i}`, 2_000));
    await cluster.until(() => requests.every(({ numTokens }) => numTokens > 5));
    const before = servingIds(cluster);
    await succeed(cluster);
    let most = 0, least = Infinity;
    const watch = () => {
      most = Math.max(most, cluster.instances.size);
      least = Math.min(least, servingIds(cluster).length);
      if (!isOver) cluster.clock.after(10, watch);
    };
    let isOver = false;
    watch();
    const { order, status } = await replaceAll(cluster);
    isOver = true;
    assert.deepEqual(order, before);
    assert.deepEqual(status, { total: 3, replaced: 3, isOver: true, error: null });
    assert.deepEqual([most, least], [3, 2]);
    const after = servingIds(cluster);
    assert.equal(after.length, 3);
    assert.ok(after.every((id) => !before.includes(id)), `${after}`);
    await cluster.until(() => requests.every(({ hasEnded }) => hasEnded), 120_000);
    assert.ok(requests.every(({ finish }) => finish?.reason === "length"));
    assert.equal(requests.reduce((sum, one) => sum + one.numResumptions, 0), 0);
  }, { migration }));

Deno.test("rollout: the only instance stops when the other serves", () =>
  withFakeCluster(1, async (cluster) => {
    const a = cluster.submit("a", 1_000);
    await cluster.until(() => a.numTokens > 5);
    await succeed(cluster);
    const { status } = await replaceAll(cluster);
    assert.equal(status.replaced, 1);
    assert.equal(servingIds(cluster).length, 1);
    assert.notEqual(servingIds(cluster)[0], "instance-0");
    await cluster.until(() => a.hasEnded);
    assert.deepEqual([a.finish?.reason, a.numResumptions], ["length", 0]);
    assert.ok(cluster.client.isReady());
  }, { migration }));

Deno.test("rollout: if the only instance cannot be replaced, it stays", () =>
  withFakeCluster(1, async (cluster) => {
    const a = cluster.submit("a", 1_000);
    await cluster.until(() => a.numTokens > 5);
    await succeed(cluster);
    cluster.launchDelayMs = 1_000_000; // the other never joins
    const { status } = await replaceAll(cluster);
    assert.equal(status.replaced, 0);
    assert.match(status.error!, /did not connect to the manager/);
    assert.deepEqual(servingIds(cluster), ["instance-0"]);
    await cluster.until(() => a.hasEnded);
    assert.equal(a.numResumptions, 0);
    assert.ok(cluster.client.isReady());
  }, { migration }));

Deno.test("rollout: stops at the first instance that is not replaced; the others serve on", () =>
  withFakeCluster(3, async (cluster) => {
    await succeed(cluster);
    cluster.launchDelayMs = 1_000_000;
    const { order, status } = await replaceAll(cluster);
    assert.deepEqual(order, ["instance-0"]);
    assert.deepEqual([status.replaced, status.isOver], [0, true]);
    assert.match(status.error!, /did not connect/);
    assert.deepEqual(servingIds(cluster), ["instance-1", "instance-2"]);
    cluster.launchDelayMs = 0;
    await cluster.until(() => cluster.client.isReady(), 120_000); // the manager tries again
  }));

Deno.test("rollout: an operator who keeps an instance ends it; instances by hand are left alone", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.startByHand("mine");
    await cluster.until(() => servingIds(cluster).includes("mine"));
    const a = cluster.submit("a", 3_000), b = cluster.submit("b", 3_000);
    await cluster.until(() => a.numTokens > 5 && b.numTokens > 5);
    await succeed(cluster);
    const rollout = cluster.manager.replaceTakenOver(() => {});
    await cluster.pass(500);
    assert.equal(rollout.status.total, 2);
    cluster.manager.keepInstance("instance-0");
    const status = await cluster.run(rollout.done);
    assert.deepEqual(status, {
      total: 2,
      replaced: 0,
      isOver: true,
      error: "instance-0 was kept by an operator",
    });
    assert.equal(servingIds(cluster).length, 3);
  }));

Deno.test("handover: as many instances are wanted as the manager before had", () =>
  withFakeCluster(3, async (cluster) => {
    assert.ok(await cluster.run(cluster.manager.removeInstance("instance-2")));
    const { numWanted } = cluster.manager;
    assert.equal(numWanted, 2);
    const survivors = servingIds(cluster);
    await succeed(cluster, numWanted);
    await cluster.pass(20_000);
    assert.deepEqual(servingIds(cluster), survivors);
  }));

/** Runs a rollout. @returns the fewest instances that served meanwhile */
async function fewestServing(cluster: FakeCluster, rollout: Promise<unknown>): Promise<number> {
  let fewest = Infinity, isOver = false;
  const watch = () => {
    fewest = Math.min(fewest, servingIds(cluster).length);
    if (!isOver) cluster.clock.after(10, watch);
  };
  watch();
  await cluster.run(rollout);
  isOver = true;
  return fewest;
}

Deno.test("rollout: instances that are replaced by several at once give way one at a time", () =>
  withFakeCluster(3, async (cluster) => {
    await succeed(cluster);
    const rollouts = Array.from({ length: 3 }, () => cluster.manager.replaceTakenOver(() => {}));
    const all = Promise.all(rollouts.map(({ done }) => done));
    assert.equal(await fewestServing(cluster, all), 2);
    assert.ok((await all).every(({ error }) => error === null));
    assert.equal(servingIds(cluster).length, 3);
  }));

Deno.test("rollout: waits until an instance that was lost is replaced", () =>
  withFakeCluster(3, async (cluster) => {
    await succeed(cluster);
    cluster.launchDelayMs = 5_000;
    cluster.kill("instance-2");
    await cluster.until(() => servingIds(cluster).length === 2);
    const { done } = cluster.manager.replaceTakenOver(() => {});
    assert.equal(await fewestServing(cluster, done), 2);
    assert.deepEqual(await done, { total: 2, replaced: 2, isOver: true, error: null });
  }));
