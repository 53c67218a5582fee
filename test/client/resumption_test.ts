/** Requests that outlive their instance, their connections and their manager, on a virtual clock. */
import assert from "node:assert/strict";
import { RESUME_EPOCH } from "../../src/core/protocol/generate.ts";
import { type FakeCluster, type TrackedRequest, withFakeCluster } from "../manager/fake_cluster.ts";

const holder = (cluster: FakeCluster, { requestId }: TrackedRequest) =>
  cluster.holders(requestId)[0];

Deno.test("resumption: goes on behind the tokens that were delivered", () =>
  withFakeCluster(2, async (cluster) => {
    const request = cluster.submit("a");
    await cluster.until(() => request.numTokens >= 10);
    cluster.kill(holder(cluster, request).instanceId);
    await cluster.until(() => cluster.holders("a").length > 0);
    const held = holder(cluster, request).requests.get("a")!;
    assert.equal(held.epoch, RESUME_EPOCH);
    assert.ok(held.request.outputTokenIds.length >= 10);
    await cluster.until(() => request.hasEnded);
    assert.equal(request.finish?.reason, "length");
    assert.equal(request.numResumptions, 1);
  }));

Deno.test("resumption: while nobody is alive it waits, and so do new requests", () =>
  withFakeCluster(1, async (cluster) => {
    const a = cluster.submit("a");
    await cluster.until(() => a.numTokens >= 5);
    cluster.launchDelayMs = 50_000;
    cluster.kill("instance-0");
    await cluster.pass(1_000);
    assert.ok(!cluster.client.isReady());
    const b = cluster.submit("b"), c = cluster.submit("c");
    await cluster.pass(40_000);
    cluster.abort(c);
    assert.ok(!a.hasEnded && !b.hasEnded);
    await cluster.until(() => a.hasEnded && b.hasEnded);
    assert.deepEqual([a.finish?.reason, b.finish?.reason], ["length", "length"]);
    assert.ok(cluster.client.isReady());
    assert.equal(cluster.client.numRequests, 0);
  }));

Deno.test("resumption: a broken connection to an instance that lives is made again", () =>
  withFakeCluster(1, async (cluster) => {
    const a = cluster.submit("a");
    await cluster.until(() => a.numTokens >= 5);
    cluster.network.breakConnections("frontend", "instance-0");
    await cluster.until(() => a.hasEnded);
    assert.equal(a.finish?.reason, "length");
    assert.equal(a.numResumptions, 1);
  }));

Deno.test("resumption: an instance that hangs is given up, and what it does later is refused", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 400);
    await cluster.until(() => a.numTokens >= 5);
    const hanging = holder(cluster, a).instanceId;
    cluster.network.pause(hanging);
    await cluster.until(() => a.numResumptions === 1);
    await cluster.until(() => a.hasEnded);
    assert.equal(a.finish?.reason, "length");
    await cluster.until(() => !cluster.instances.has(hanging)); // the manager has killed it
  }));

Deno.test("resumption: a request that vanished in a migration is found missing", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a");
    await cluster.until(() => a.numTokens >= 5);
    holder(cluster, a).requests.delete("a");
    await cluster.until(() => a.hasEnded, 20_000);
    assert.equal(a.finish?.reason, "length");
    assert.equal(a.numResumptions, 1);
  }));

Deno.test("abort: reaches a request that has moved meanwhile", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 1000);
    await cluster.until(() => a.numTokens >= 5);
    // The destination has it and has not said so yet.
    const [source, destination] = ["instance-0", "instance-1"].map((id) =>
      cluster.instances.get(id)!
    ).sort((one) => one.requests.has("a") ? -1 : 1);
    const held = source.requests.get("a")!;
    source.requests.delete("a");
    destination.requests.set("a", { ...held, epoch: held.epoch + 1 });
    cluster.abort(a);
    await cluster.until(() => cluster.holders("a").length === 0, 5_000);
  }));

Deno.test("manager gone: requests run on, new ones go to who has the least", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 200);
    await cluster.until(() => a.numTokens >= 5);
    cluster.killManager();
    await cluster.pass(1_000);
    const b = cluster.submit("b", 200);
    await cluster.until(() => b.numTokens >= 5);
    assert.notEqual(holder(cluster, a), holder(cluster, b));
    await cluster.restartManager();
    assert.deepEqual(cluster.manager.instances().map(({ instanceId }) => instanceId), [
      "instance-0",
      "instance-1",
    ]);
    assert.equal(cluster.manager.statistics().launchedInstances, 0);
    await cluster.until(() => a.hasEnded && b.hasEnded);
    assert.equal(a.numResumptions + b.numResumptions, 0);
    await cluster.pass(10_000);
    const c = cluster.submit("c");
    await cluster.until(() => c.hasEnded);
    assert.equal(cluster.manager.statistics().dispatches, 1);
  }));

Deno.test("manager back: starts what is missing, under names that nobody has", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    cluster.kill("instance-0");
    await cluster.pass(1_000);
    await cluster.restartManager();
    const [old, added] = cluster.instances.keys();
    assert.equal(old, "instance-1");
    assert.match(added, /^instance-\w+-0$/);
    await cluster.until(() => cluster.client.isReady());
  }));

Deno.test("manager back: what it starts may fail while others serve, and is started again", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    cluster.kill("instance-0");
    await cluster.pass(1_000);
    cluster.launchDelayMs = 500;
    const restarted = cluster.restartManagerSoon();
    await cluster.until(() => cluster.instances.size === 2);
    cluster.kill([...cluster.instances.keys()].at(-1)!);
    await cluster.run(restarted);
    assert.ok(!cluster.client.isReady());
    await cluster.until(() => cluster.client.isReady(), 5_000);
  }));

Deno.test("manager: an instance that joins again soon is not lost, one that does not is", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 200);
    await cluster.until(() => a.numTokens >= 5);
    cluster.network.breakConnections("manager", "instance-0");
    await cluster.until(() => a.hasEnded);
    assert.equal(a.numResumptions, 0);
    assert.equal(cluster.manager.instances().length, 2);
    assert.equal(cluster.manager.statistics().lostInstances, 0);
    cluster.network.block("instance-0", "manager");
    await cluster.until(() => cluster.manager.statistics().lostInstances === 1);
    assert.ok(!cluster.instances.has("instance-0"), "it was killed");
  }));

Deno.test("manager back: instances that it has not found yet keep their requests", () =>
  withFakeCluster(2, async (cluster) => {
    const requests = ["a", "b"].map((id) => cluster.submit(id, 400));
    await cluster.until(() => requests.every(({ numTokens }) => numTokens >= 5));
    cluster.killManager();
    cluster.network.block("instance-0", "manager");
    await cluster.restartManager();
    await cluster.until(() => cluster.client.instances().length === 2); // one of them is new
    cluster.network.heal("instance-0", "manager");
    await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
    assert.ok(requests.every(({ numResumptions }) => numResumptions === 0));
  }));

Deno.test("epochs: the instance with the lower one is told to drop the request", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 1000);
    await cluster.until(() => a.numTokens >= 5);
    const former = holder(cluster, a);
    const other = [...cluster.instances.values()].find((one) => one !== former)!;
    other.requests.set("a", { ...former.requests.get("a")!, epoch: 1 });
    await cluster.until(() => !former.requests.has("a"), 2_000);
    assert.ok(other.requests.has("a"));
    await cluster.until(() => a.hasEnded);
    assert.equal(a.finish?.reason, "length");
    assert.equal(a.numResumptions, 0);
  }));
