/** What a manager tells watchers of the cluster, with fake instances on a virtual clock. */
import assert from "node:assert/strict";
import { calls } from "../../../src/core/protocol/calls.ts";
import type { ClusterState, NumberedEvent } from "../../../src/core/protocol/monitoring.ts";
import type { Buckets } from "../../../src/core/stats/bucket_counts.ts";
import { FakeCluster, migration } from "../fake_cluster.ts";
import { managerOptions } from "../support.ts";

/** All events so far. They have to fit the protocol's own checks, which a simulated bus leaves out. */
async function eventsOf(cluster: FakeCluster): Promise<readonly NumberedEvent[]> {
  const events: NumberedEvent[] = [];
  for (let after = 0;;) {
    const reply = await cluster.run(cluster.client.monitor.events({ after }));
    assert.deepEqual(calls.cluster_events.reply(JSON.parse(JSON.stringify(reply))), reply);
    events.push(...reply.events);
    after = reply.next;
    if (!reply.hasMore) return events;
  }
}

async function stateOf(cluster: FakeCluster): Promise<ClusterState> {
  const state = await cluster.run(cluster.client.monitor.state());
  assert.deepEqual(calls.cluster_state.reply(JSON.parse(JSON.stringify(state))), state);
  return state;
}

const countOf = ({ counts }: Buckets) => counts.reduce((sum, count) => sum + count, 0);

function ofType<T extends NumberedEvent["type"]>(events: readonly NumberedEvent[], type: T) {
  return events.filter((event): event is NumberedEvent & { type: T } => event.type === type);
}

Deno.test("monitor: a dispatch is an event, a count and a number of its instance", async () => {
  const cluster = new FakeCluster(1);
  await cluster.start();
  const request = cluster.submit("r", 5);
  await cluster.until(() => request.hasEnded);
  const events = await eventsOf(cluster);
  assert.deepEqual(events.map(({ sequence }) => sequence), events.map((_, i) => i + 1));
  const [dispatched] = ofType(events, "dispatched");
  assert.equal(dispatched.requestId, "r");
  assert.equal(dispatched.priority, "normal");
  assert.ok(dispatched.atMs >= 1_000_000, `${dispatched.atMs}`);
  const { statistics, instances } = await stateOf(cluster);
  assert.deepEqual(statistics.dispatches, { placed: 1, refused: 0 });
  assert.equal(countOf(statistics.dispatchSeconds), 1);
  assert.deepEqual(statistics.instances, { started: 2, stopped: 0, lost: 0, startFailed: 0 });
  assert.deepEqual(
    instances.map(({ instanceId, dispatchedRequests }) => [instanceId, dispatchedRequests]),
    [["instance-0", 0], ["instance-1", 0]].map(([id]) => [
      id,
      id === dispatched.instanceId ? 1 : 0,
    ]),
  );
  assert.deepEqual([instances[0].state, instances[0].backend], ["serving", "test"]);
});

Deno.test("monitor: migrations begin and end, and are counted by backend, outcome and phase", async () => {
  const cluster = new FakeCluster(1, {
    options: { ...managerOptions, dispatchPolicy: "load", initialInstances: 1 },
    migration: { ...migration, enableDefrag: false, migrateOutThreshold: 11 },
  });
  await cluster.start();
  const requests = Array.from({ length: 8 }, (_, i) => cluster.submit(`r${i}`, 500));
  await cluster.until(() => requests.every(({ numTokens }) => numTokens > 0));
  await cluster.run(cluster.manager.addInstance());
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
  const events = await eventsOf(cluster);
  const started = ofType(events, "migration_started"), ended = ofType(events, "migration_ended");
  const committed = ended.filter(({ outcome }) => outcome === "committed");
  assert.ok(committed.length >= 3, `${committed.length}`);
  assert.deepEqual(
    new Set(started.map(({ migrationId }) => migrationId)),
    new Set(ended.map(({ migrationId }) => migrationId)),
  );
  const { statistics: { migrations, moves } } = await stateOf(cluster);
  assert.equal(migrations.reduce((sum, { count }) => sum + count, 0), ended.length);
  const [row] = migrations.filter(({ outcome }) => outcome === "committed");
  assert.deepEqual(row, {
    backend: "test",
    outcome: "committed",
    phase: "commit",
    count: committed.length,
  });
  assert.equal(moves.length, 1);
  assert.equal(moves[0].bytes, committed.reduce((sum, { bytes }) => sum + bytes, 0));
  assert.equal(countOf(moves[0].downtimeSeconds), committed.length);
});

Deno.test("monitor: a killed instance is lost, and its requests are resumed", async () => {
  const cluster = new FakeCluster(2);
  await cluster.start();
  const request = cluster.submit("r", 200);
  await cluster.until(() => request.numTokens > 3);
  const [{ instanceId }] = ofType(await eventsOf(cluster), "dispatched");
  cluster.kill(instanceId);
  await cluster.until(() => request.hasEnded);
  const events = await eventsOf(cluster);
  assert.equal(ofType(events, "instance_lost")[0].instanceId, instanceId);
  const [resumed] = ofType(events, "resumed");
  assert.equal(resumed.requestId, "r");
  assert.match(resumed.reason, new RegExp(`^${instanceId} was lost while it ran the request`));
  assert.equal(ofType(events, "dispatched").length, 2);
  const { statistics } = await stateOf(cluster);
  assert.deepEqual([statistics.resumedRequests, statistics.instances.lost], [1, 1]);
});

Deno.test("monitor: preemptions and ends come from reports", async () => {
  const cluster = new FakeCluster(3);
  await cluster.start();
  const instance = cluster.instances.get("instance-0")!;
  const totals = { promptTokens: 1, outputTokens: 1, preemptions: 2 };
  await cluster.until(() => cluster.manager.infos().length === 2);
  instance.info = { totals, finishedRequestIds: ["gone"] };
  await cluster.until(() => cluster.events.some(({ type }) => type === "preempted"));
  instance.info = { totals };
  const events = await eventsOf(cluster);
  assert.deepEqual(ofType(events, "preempted").map(({ count }) => count), [2]);
  const [{ instanceId, requestId }] = ofType(events, "ended");
  assert.deepEqual([instanceId, requestId], ["instance-0", "gone"]);
});

Deno.test("monitor: watchers share an answer for a moment", async () => {
  const cluster = new FakeCluster(4);
  await cluster.start();
  const { monitor } = cluster.client;
  assert.equal(monitor.state(), monitor.state());
  const first = await cluster.run(monitor.state());
  await cluster.run(new Promise<void>((resolve) => cluster.clock.after(1_000, resolve)));
  assert.notEqual(await cluster.run(monitor.state()), first);
});
