/** Instances that go, in whatever way, and what comes in their place; on a virtual clock. */
import assert from "node:assert/strict";
import { rejection } from "../../conformance/bus.ts";
import { type FakeCluster, withFakeCluster } from "../fake_cluster.ts";

const servingIds = ({ manager }: FakeCluster) =>
  manager.instances().map(({ instanceId }) => instanceId);

Deno.test("replaced: an instance that is killed", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.kill("instance-0");
    await cluster.until(() => servingIds(cluster).length === 1);
    await cluster.until(() => !cluster.client.isReady(), 1_000);
    await cluster.until(() => cluster.client.isReady(), 1_000);
    assert.deepEqual(servingIds(cluster), ["instance-1", "instance-2"]);
  }));

Deno.test("replaced: an instance that hangs, within its time, and not sooner than it must", () =>
  withFakeCluster(2, async (cluster) => {
    for (const hanging of ["instance-0", "instance-1"]) {
      const hungMs = cluster.clock.nowMs();
      cluster.network.pause(hanging);
      await cluster.until(() => !servingIds(cluster).includes(hanging));
      const silentMs = cluster.clock.nowMs() - hungMs;
      assert.ok(silentMs > 2_000 && silentMs <= 4_100, `${silentMs} ms`);
      await cluster.until(() => !cluster.instances.has(hanging), 1_000);
      await cluster.until(() => cluster.client.isReady(), 2_000);
    }
  }, { instanceTimeoutMs: 4_000 }));

Deno.test("replaced: nothing, when it was the manager that stood still", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.network.pause("manager");
    await cluster.pass(60_000);
    cluster.network.resume("manager");
    await cluster.pass(20_000);
    assert.deepEqual(servingIds(cluster), ["instance-0", "instance-1"]);
    assert.equal(cluster.manager.statistics().launchedInstances, 2);
  }));

Deno.test("replaced: an instance that hangs as it starts, and one that never connects", () =>
  withFakeCluster(1, async (cluster) => {
    cluster.launchDelayMs = 1_000_000;
    cluster.kill("instance-0");
    await cluster.pass(5_000);
    assert.deepEqual([...cluster.instances.keys()], ["instance-1"]);
    cluster.launchDelayMs = 0;
    await cluster.until(() => cluster.client.isReady(), 70_000);
    assert.deepEqual(servingIds(cluster), ["instance-2"]);
  }));

Deno.test("replaced: nothing that was removed, also when it dies while it drains", () =>
  withFakeCluster(3, async (cluster) => {
    const a = cluster.submit("a", 500);
    await cluster.until(() => a.numTokens > 5);
    const [{ instanceId }] = cluster.holders("a");
    const removed = cluster.manager.removeInstance(instanceId);
    await cluster.pass(500);
    cluster.kill(instanceId);
    assert.equal(await cluster.run(removed), false);
    await cluster.pass(20_000);
    assert.equal(servingIds(cluster).length, 2);
    assert.ok(cluster.client.isReady());
    await cluster.until(() => a.hasEnded);
    assert.equal(a.finish?.reason, "length");
  }));

Deno.test("added: one that does not start leaves the service as ready as it was", () =>
  withFakeCluster(2, async (cluster) => {
    const added = cluster.manager.addInstance();
    added.catch(() => {});
    await cluster.pass(1);
    assert.ok(cluster.client.isReady());
    cluster.kill("instance-2");
    await assert.rejects(cluster.run(added));
    await cluster.pass(10_000);
    assert.ok(cluster.client.isReady());
    assert.deepEqual(servingIds(cluster), ["instance-0", "instance-1"]);
    await cluster.run(cluster.manager.addInstance());
    cluster.kill("instance-3");
    await cluster.until(() => servingIds(cluster).length === 2);
    await cluster.until(() => servingIds(cluster).length === 3);
  }));

Deno.test("removed: when the time is over what is left goes on elsewhere", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 1_000);
    await cluster.until(() => a.numTokens > 5);
    const [{ instanceId }] = cluster.holders("a");
    for (const [from, to] of [[0, 1], [1, 0]]) {
      cluster.network.block(`instance-${from}`, `instance-${to}`); // nothing can move
    }
    const beganMs = cluster.clock.nowMs();
    assert.equal(await cluster.run(cluster.manager.removeInstance(instanceId)), true);
    assert.ok(cluster.clock.nowMs() - beganMs < 4_000);
    await cluster.until(() => a.hasEnded);
    assert.deepEqual([a.finish?.reason, a.numResumptions], ["length", 1]);
    assert.ok(cluster.client.isReady());
  }, { drainTimeoutMs: 3_000 }));

Deno.test("given up: an instance that another manager had started is killed when it hangs", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    await cluster.restartManager();
    assert.equal(cluster.manager.statistics().launchedInstances, 0);
    cluster.network.pause("instance-0");
    await cluster.until(() => !cluster.instances.has("instance-0"));
    await cluster.until(() => cluster.client.isReady());
  }));

Deno.test("replaced: an instance that another manager had started, as soon as it is killed", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    await cluster.restartManager();
    cluster.kill("instance-0");
    await cluster.until(() => servingIds(cluster).length === 1, 500);
    await cluster.until(() => cluster.client.isReady(), 1_500);
  }));

Deno.test("replaced: an instance that hangs is killed as soon as it is given up", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.network.pause("instance-0");
    await cluster.until(() => servingIds(cluster).length === 1, 20_000);
    await cluster.until(() => !cluster.instances.has("instance-0"), 10);
  }));

Deno.test("replaced: what died with the manager, as soon as all that are left have come", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    cluster.kill("instance-0");
    await cluster.pass(300);
    const restartedMs = cluster.clock.nowMs();
    await cluster.restartManager([...cluster.instances.keys()]);
    assert.ok(cluster.clock.nowMs() - restartedMs < 500);
    assert.equal(servingIds(cluster).length, 2);
    assert.equal(cluster.manager.statistics().launchedInstances, 1);
  }));

Deno.test("replaced: an instance gets its time to join again, however soon one that is silent is given up", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    await cluster.pass(50); // they have tried in vain
    await cluster.restartManager([...cluster.instances.keys()]);
    await cluster.pass(1_000);
    assert.deepEqual(servingIds(cluster), ["instance-0", "instance-1"]);
    assert.ok(!cluster.events.some(({ type }) => type === "orphan_killed"));
  }, { instanceTimeoutMs: 100 }));

for (const isStopped of [false, true]) {
  const when = isStopped ? "with the manager that it never joined" : "after a while";
  Deno.test(`given up: an instance that hangs while there is no manager is killed ${when}`, () =>
    withFakeCluster(2, async (cluster) => {
      const a = cluster.submit("a", 1_000);
      await cluster.until(() => a.numTokens > 5);
      cluster.killManager();
      const [{ instanceId }] = cluster.holders("a");
      cluster.network.pause(instanceId);
      await cluster.restartManager([...cluster.instances.keys()]);
      assert.equal(servingIds(cluster).length, 2);
      assert.ok(cluster.instances.has(instanceId));
      if (isStopped) await cluster.run(cluster.manager.stop());
      else await cluster.until(() => !cluster.instances.has(instanceId), 4_000);
      assert.ok(!cluster.instances.has(instanceId));
      assert.ok(cluster.events.some(({ type }) => type === "orphan_killed"));
      if (isStopped) return;
      await cluster.until(() => a.hasEnded);
      assert.equal(a.finish?.reason, "length");
    }, { instanceTimeoutMs: 4_000 }));
}

Deno.test("given up: an instance that comes back too late is turned away", () =>
  withFakeCluster(2, async (cluster) => {
    const a = cluster.submit("a", 1_000);
    await cluster.until(() => a.numTokens > 5);
    const [held] = cluster.holders("a");
    cluster.isAdoptable = false;
    cluster.killManager();
    await cluster.restartManager();
    cluster.network.block(held.instanceId, "manager");
    cluster.network.breakConnections("manager", held.instanceId);
    await cluster.until(() => a.numResumptions === 1);
    cluster.network.heal(held.instanceId, "manager");
    await cluster.until(() => !cluster.instances.has(held.instanceId));
    assert.ok(cluster.client.isReady());
    await cluster.until(() => a.hasEnded);
    assert.equal(a.finish?.reason, "length");
  }));

Deno.test("replaced: an instance that a restarted manager has met, and that hangs before it says more", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    await cluster.pass(100);
    const restarted = cluster.restartManagerSoon();
    await cluster.until(() => cluster.manager.numInstances > 0);
    assert.deepEqual(servingIds(cluster), []);
    cluster.network.pause("instance-0");
    cluster.network.pause("instance-1");
    await cluster.run(restarted);
    await cluster.until(() => cluster.client.isReady(), 20_000);
    assert.equal(servingIds(cluster).length, 2);
  }, { instanceTimeoutMs: 4_000 }));

Deno.test("removed: instances that stop with a request are not what it kills", () =>
  withFakeCluster(1, async (cluster) => {
    const a = cluster.submit("a", 500);
    for (let i = 0; i < 8; i++) {
      await cluster.until(() => cluster.holders("a").length > 0);
      await cluster.run(cluster.manager.addInstance());
      await cluster.run(cluster.manager.removeInstance(cluster.holders("a")[0].instanceId));
    }
    await cluster.until(() => a.hasEnded);
    assert.deepEqual([a.finish?.reason, a.numResumptions], ["length", 8]);
  }, { drainTimeoutMs: 0 }));

Deno.test("by hand: one that is refused leaves as many wanted as before", () =>
  withFakeCluster(2, async (cluster) => {
    for (const instanceId of ["odd", "even"]) {
      cluster.startByHand(instanceId).model = "another";
      await cluster.until(() => !cluster.instances.has(instanceId));
    }
    await cluster.pass(60_000);
    assert.deepEqual(servingIds(cluster), ["instance-0", "instance-1"]);
    assert.equal(cluster.manager.statistics().launchedInstances, 2);
    const reasons = cluster.events.flatMap((event) => event.type === "start_failed" ? event : []);
    assert.equal(reasons.length, 2);
    assert.match(reasons[0].reason, /^odd /);
  }));

Deno.test("by hand: one that has not served yet takes nobody's place", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.startByHand("odd").loadMs = 5_000;
    await cluster.until(() => cluster.manager.numInstances === 3);
    cluster.kill("instance-0");
    await cluster.until(() => servingIds(cluster).length === 1);
    await cluster.until(() => servingIds(cluster).length === 2, 2_000);
    await cluster.until(() => servingIds(cluster).length === 3);
    assert.ok(cluster.client.isReady());
    cluster.kill("odd");
    await cluster.until(() => servingIds(cluster).length === 2);
    await cluster.until(() => servingIds(cluster).length === 3);
  }));

for (const exitMs of [200, 3_000]) {
  Deno.test(`by hand: one that leaves, and ends ${exitMs} ms after its last word, ends by itself`, () =>
    withFakeCluster(2, async (cluster) => {
      const instance = cluster.startByHand("mine");
      await cluster.until(() => servingIds(cluster).includes("mine"));
      instance.exitMs = exitMs;
      const requests = ["a", "b", "c"].map((id) => cluster.submit(id, 500));
      await cluster.until(() => cluster.instances.get("mine")!.requests.size === 1);
      await cluster.run(instance.leave());
      await cluster.until(() => servingIds(cluster).length === 2, 10);
      await cluster.until(() => requests.some(({ numResumptions }) => numResumptions === 1), 100);
      await cluster.until(() => !cluster.instances.has("mine"));
      assert.deepEqual(cluster.exits.get("mine"), { code: 0, signal: null });
      await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
      assert.ok(cluster.events.some((one) => one.type === "stopped" && one.instanceId === "mine"));
      assert.equal(cluster.manager.statistics().launchedInstances, 2);
    }));
}

Deno.test("by hand: one that leaves and does not end is killed, also when the manager stops meanwhile", () =>
  withFakeCluster(1, async (cluster) => {
    for (const isStopped of [false, true]) {
      const name = isStopped ? "mine" : "theirs";
      const instance = cluster.startByHand(name);
      await cluster.until(() => servingIds(cluster).includes(name));
      instance.exitMs = Infinity;
      await cluster.run(instance.leave());
      await cluster.pass(2_000);
      assert.ok(cluster.instances.has(name));
      if (isStopped) await cluster.run(cluster.manager.stop());
      else await cluster.until(() => !cluster.instances.has(name), 4_000);
      assert.deepEqual(cluster.exits.get(name), { code: null, signal: "SIGKILL" });
    }
  }));

Deno.test("replaced: an instance of a manager before, that was asked to stop, before its process has ended", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.killManager();
    await cluster.restartManager();
    const instance = cluster.instances.get("instance-0")!;
    instance.exitMs = 4_000;
    await cluster.run(instance.leave());
    await cluster.until(() => cluster.client.isReady(), 1_500);
    assert.ok(cluster.instances.has("instance-0"));
    await cluster.until(() => !cluster.instances.has("instance-0"));
    assert.deepEqual(cluster.exits.get("instance-0"), { code: 0, signal: null });
  }));

Deno.test("by hand: a name is to be had again when whoever had it has ended", () =>
  withFakeCluster(1, async (cluster) => {
    for (const how of ["leaves", "is killed", "hangs", "leaves"]) {
      const instance = cluster.startByHand("instance-2");
      await cluster.until(() => servingIds(cluster).includes("instance-2"));
      const a = cluster.submit(`a ${how} ${cluster.clock.nowMs()}`, 100);
      const b = cluster.submit(`b ${how} ${cluster.clock.nowMs()}`, 100);
      await cluster.until(() => instance.requests.size > 0);
      if (how === "leaves") await cluster.run(instance.leave());
      else if (how === "is killed") cluster.kill("instance-2");
      else cluster.network.pause("instance-2");
      await cluster.until(() => !cluster.instances.has("instance-2"));
      await cluster.until(() => !servingIds(cluster).includes("instance-2"));
      await cluster.until(() => a.hasEnded && b.hasEnded);
      assert.deepEqual([a.finish?.reason, b.finish?.reason], ["length", "length"]);
      if (how === "leaves") continue;
      await cluster.until(() => cluster.client.isReady()); // one has come in its place
      await cluster.run(cluster.manager.removeInstance(servingIds(cluster).at(-1)!));
    }
    const added = await cluster.run(cluster.manager.addInstance());
    assert.ok(!["instance-0", "instance-2"].includes(added), `${added} had been somebody's`);
  }));

Deno.test("by hand: a name that somebody has is refused, and that one serves on", () =>
  withFakeCluster(2, async (cluster) => {
    for (const name of ["instance-0", "mine"]) {
      if (name === "mine") cluster.startByHand("mine").loadMs = 500;
      await cluster.pass(100);
      const error = await cluster.run(rejection(cluster.joinAs(name, { startedBy: "hand" })));
      assert.equal(error.kind, "usage");
      assert.match(error.message, new RegExp(`--instance-id ${name}: an instance .* that name`));
    }
    await cluster.until(() => servingIds(cluster).length === 3);
    await cluster.pass(10_000);
    assert.deepEqual(servingIds(cluster), ["instance-0", "instance-1", "mine"]);
  }));

Deno.test("given up: one that is back after another of its name has come is turned away", () =>
  withFakeCluster(1, async (cluster) => {
    cluster.isAdoptable = false;
    cluster.startByHand("mine");
    await cluster.until(() => servingIds(cluster).includes("mine"));
    const isRunning = true;
    cluster.network.block("mine", "manager");
    cluster.network.breakConnections("manager", "mine");
    await cluster.until(() => servingIds(cluster).join() === "instance-0,instance-1");
    await cluster.run(cluster.joinAs("mine", { startedBy: "hand", incarnation: "second" }));
    cluster.network.heal("mine", "manager");
    await cluster.until(() => !cluster.instances.has("mine"));
    const third = { isRunning, incarnation: "third" };
    const error = await cluster.run(rejection(cluster.joinAs("mine", third)));
    assert.equal(error.kind, "not_found");
  }));
