/** Hosts that are drained, with fake instances on a virtual clock. */
import assert from "node:assert/strict";
import type { InstanceId } from "../../../src/core/protocol/generate.ts";
import { FakeCluster, migration } from "../fake_cluster.ts";
import { managerOptions } from "../support.ts";

/** Two hosts with two instances each, and a long request on each instance. */
async function twoHosts(): Promise<FakeCluster> {
  const cluster = new FakeCluster(1, {
    options: { ...managerOptions, dispatchPolicy: "load", initialInstances: 4 },
    migration: { ...migration, enableMigration: false },
    hostNameOf: (instanceId) => Number(instanceId.at(-1)) % 2 === 0 ? "even" : "odd",
  });
  await cluster.start();
  for (let i = 0; i < 8; i++) cluster.submit(`r${i}`, 2_000);
  const instances = [...cluster.instances.values()];
  await cluster.until(() => instances.every(({ requests }) => requests.size === 2));
  return cluster;
}

function requestsOn(cluster: FakeCluster, ...ids: InstanceId[]): number {
  return ids.reduce((sum, id) => sum + cluster.instances.get(id)!.requests.size, 0);
}

const statesOf = (cluster: FakeCluster) =>
  cluster.manager.hosts().map(({ hostName, state, availableInstances }) =>
    [hostName, state, availableInstances] as const
  );

Deno.test("hosts: all instances of a drained host give their requests to other hosts", async () => {
  const cluster = await twoHosts();
  assert.deepEqual(statesOf(cluster), [["even", "serving", 2], ["odd", "serving", 2]]);
  const drained = cluster.manager.drainHost("even");
  assert.deepEqual(statesOf(cluster), [["even", "draining", 0], ["odd", "serving", 2]]);
  assert.equal(await cluster.run(drained), true);
  assert.deepEqual(statesOf(cluster), [["even", "drained", 0], ["odd", "serving", 2]]);
  assert.equal(requestsOn(cluster, "instance-0", "instance-2"), 0);
  assert.equal(requestsOn(cluster, "instance-1", "instance-3"), 8);
  assert.equal(cluster.manager.numWanted, 4, "a drain removes nothing");
});

Deno.test("hosts: an instance that comes to a drained host takes no request", async () => {
  const cluster = await twoHosts();
  await cluster.run(cluster.manager.drainHost("even"));
  const late = await cluster.run(cluster.manager.addInstance());
  assert.equal(late, "instance-4");
  assert.deepEqual(statesOf(cluster), [["even", "drained", 0], ["odd", "serving", 2]]);
  cluster.manager.keepHost("even");
  assert.deepEqual(statesOf(cluster), [["even", "serving", 3], ["odd", "serving", 2]]);
});

Deno.test("hosts: no instance starts on a drained host, and a lost one is replaced once it is kept", async () => {
  const cluster = await twoHosts();
  cluster.launchHost = "even";
  await cluster.run(cluster.manager.drainHost("even"));
  await assert.rejects(cluster.run(cluster.manager.addInstance()), {
    kind: "conflict",
    message: "even is drained",
  });
  cluster.kill("instance-0");
  await cluster.pass(20_000);
  assert.equal(cluster.manager.numInstances, 3);
  const failures = cluster.events.filter(({ type }) => type === "start_failed");
  assert.ok(failures.length > 0);
  cluster.manager.keepHost("even");
  await cluster.until(() => cluster.manager.numInstances === 4);
});

Deno.test("hosts: a service whose only host is drained for long goes on when the host is kept", async () => {
  const cluster = new FakeCluster(1, {
    options: { ...managerOptions, initialInstances: 1 },
    hostNameOf: () => "only",
  });
  await cluster.start();
  cluster.launchHost = "only";
  await cluster.run(cluster.manager.drainHost("only"));
  cluster.kill("instance-0");
  await cluster.pass(600_000);
  assert.equal(cluster.manager.numInstances, 0);
  cluster.launchDelayMs = 100;
  cluster.manager.keepHost("only");
  await cluster.until(() => cluster.instances.size === 1);
  cluster.kill([...cluster.instances.keys()][0]); // one failure is no reason to give up either
  await cluster.until(() => cluster.manager.instances().length === 1, 5_000);
  assert.deepEqual(cluster.events.filter(({ type }) => type === "given_up"), []);
});

Deno.test("hosts: one instance after the other, and no request moves to one whose turn comes", async () => {
  const cluster = await twoHosts();
  const drained = cluster.manager.drainHost("even", 1);
  assert.deepEqual(statesOf(cluster)[0], ["even", "draining", 1]);
  await cluster.until(() => requestsOn(cluster, "instance-0") === 0);
  assert.equal(requestsOn(cluster, "instance-2"), 2, "its requests went to the other host");
  assert.equal(requestsOn(cluster, "instance-1", "instance-3"), 6);
  assert.equal(await cluster.run(drained), true);
  assert.equal(requestsOn(cluster, "instance-1", "instance-3"), 8);
});

Deno.test("hosts: a host that is kept meanwhile does not go on to drain", async () => {
  const cluster = await twoHosts();
  const drained = cluster.manager.drainHost("even", 1);
  cluster.manager.keepHost("even");
  assert.equal(await cluster.run(drained), false);
  await cluster.pass(2_000);
  assert.deepEqual(statesOf(cluster), [["even", "serving", 2], ["odd", "serving", 2]]);
  assert.equal(requestsOn(cluster, "instance-0", "instance-2"), 4);
});

Deno.test("hosts: an unknown host, and a drain of no instance at a time, are refused", async () => {
  const cluster = await twoHosts();
  await assert.rejects(cluster.manager.drainHost("gpu-9"), {
    kind: "not_found",
    message: 'there is no host "gpu-9"; the hosts are: even, odd',
  });
  assert.throws(() => cluster.manager.keepHost("gpu-9"), { kind: "not_found" });
  await assert.rejects(cluster.manager.drainHost("even", 0), { kind: "invalid_request" });
});

Deno.test("hosts: the source is told that a destination is on another host", async () => {
  const cluster = await twoHosts();
  await cluster.run(cluster.manager.drain("instance-0"));
  const hosts = cluster.instances.get("instance-0")!.orders.map((
    { destination },
  ) => [destination.instanceId, destination.hostName]);
  assert.ok(hosts.length >= 2);
  for (const [instanceId, hostName] of hosts) {
    assert.equal(hostName, instanceId === "instance-2" ? undefined : "odd");
  }
});
