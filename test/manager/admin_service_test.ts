/** What an operator may ask, on production instances and a virtual clock. */
import assert from "node:assert/strict";
import type { InstanceState } from "../../src/core/protocol/admin.ts";
import type { AdminCall } from "../../src/core/protocol/calls.ts";
import type { InstanceId } from "../../src/core/protocol/generate.ts";
import type { InstanceRegistration } from "../../src/core/protocol/membership.ts";
import { World } from "../simulation/world.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

interface Admin {
  readonly world: World;
  readonly call: AdminCall;
}

async function start(numPrefill: number | null, numInstances: number): Promise<Admin> {
  const world = await World.start(numPrefill, numInstances);
  const { admin } = world.cluster.clients[0].client;
  return { world, call: (method, ask) => world.run(admin(method, ask)) };
}

async function stateOf({ call }: Admin, instanceId: InstanceId): Promise<InstanceState | "gone"> {
  const instances = await call("admin_instances", null);
  return instances.find((one) => one.instanceId === instanceId)?.state ?? "gone";
}

async function untilState(admin: Admin, instanceId: InstanceId, state: InstanceState | "gone") {
  for (let i = 0; i < 200; i++) {
    if (await stateOf(admin, instanceId) === state) return;
    const { clock } = admin.world.cluster;
    const dueMs = clock.nowMs() + 100;
    clock.after(100, () => {});
    await admin.world.until(() => clock.nowMs() >= dueMs);
  }
  assert.fail(`${instanceId} is not ${state}`);
}

/** Two instances, a request on each for a long time; the instances of `a` and `b`. */
async function withTwoRequests(): Promise<Admin & { owners: Map<string, InstanceId> }> {
  const admin = await start(null, 2);
  admin.world.submit(["a", "b"], 80);
  await admin.world.until(() =>
    [...admin.world.requests.values()].every((one) => one.tokenIds.length > 0)
  );
  const { requests } = await admin.call("admin_requests", null);
  return { ...admin, owners: new Map(requests.map((one) => [one.requestId, one.instanceId!])) };
}

Deno.test("admin: instances and requests are listed", async () => {
  const { call, owners, world } = await withTwoRequests();
  const instances = await call("admin_instances", null);
  assert.deepEqual(instances.map(({ instanceId, state }) => [instanceId, state]), [
    ["instance-0", "serving"],
    ["instance-1", "serving"],
  ]);
  const [{ pid, instanceType, totalBlocks }] = instances;
  assert.deepEqual([pid, instanceType, totalBlocks], [1, "both", 200]);
  const { requests, numOmitted, unreachable } = await call("admin_requests", null);
  assert.equal(requests.length, 2);
  assert.deepEqual([...owners.values()].sort(), ["instance-0", "instance-1"]);
  const [{ priority, state, promptTokens, outputTokens, ageMs }] = requests;
  assert.deepEqual([priority, state, promptTokens], ["normal", "running", 5]);
  assert.ok(outputTokens > 0 && ageMs > 0);
  assert.deepEqual([numOmitted, unreachable], [0, []]);
  await world.finishAll();
});

Deno.test("admin: a request moves to the instance that is named, and no token is lost", async () => {
  const { call, owners, world } = await withTwoRequests();
  const destinationId = owners.get("b")!;
  const report = await call("admin_migrate", { requestId: "a", destinationId });
  assert.deepEqual([report.outcome, report.requestId, report.destinationId], [
    "committed",
    "a",
    destinationId,
  ]);
  const { requests } = await call("admin_requests", null);
  assert.deepEqual(requests.map(({ instanceId }) => instanceId), [destinationId, destinationId]);
  await world.finishAll();
});

Deno.test("admin: what cannot be migrated is refused, with the reason", async () => {
  const { call, owners, world } = await withTwoRequests();
  const [own, other] = [owners.get("a")!, owners.get("b")!];
  const migrate = (requestId: string, destinationId: string) =>
    call("admin_migrate", { requestId, destinationId });
  await assert.rejects(migrate("a", own), {
    kind: "invalid_request",
    message: `a is on ${own} already`,
  });
  await assert.rejects(migrate("a", "instance-7"), {
    kind: "not_found",
    message: 'there is no instance "instance-7"; the instances are: instance-0, instance-1',
  });
  await assert.rejects(migrate("c", other), {
    kind: "not_found",
    message: 'no instance has a request "c"; it may have ended',
  });
  await call("admin_drain", { instanceId: other });
  await assert.rejects(migrate("a", other), {
    kind: "conflict",
    message: `${other} is draining and takes no requests`,
  });
  await world.finishAll();
});

Deno.test("admin: without --enable-migration no request moves, and the refusal names it", async () => {
  const { call, owners, world } = await withTwoRequests();
  for (const registration of world.cluster.manager!.instances()) {
    delete (registration as Mutable<InstanceRegistration>).migration;
  }
  const own = owners.get("a")!;
  await assert.rejects(
    call("admin_migrate", { requestId: "a", destinationId: owners.get("b")! }),
    {
      kind: "conflict",
      message: `no request can move from or to ${own}: it was started without --enable-migration`,
    },
  );
  const { migrations } = world.cluster.manager!.statistics();
  assert.equal(migrations.unanswered, 0);
  await world.finishAll();
});

Deno.test("admin: requests do not move by hand between instances of two types", async () => {
  const { call, world } = await start(1, 2);
  world.submit(["a"], 80);
  await world.until(() => world.requests.get("a")!.tokenIds.length > 3);
  await assert.rejects(call("admin_migrate", { requestId: "a", destinationId: "instance-0" }), {
    kind: "invalid_request",
    message: "a is on instance-1, a decode instance, and instance-0 is a prefill instance: " +
      "requests are moved by hand between instances of one type",
  });
  await world.finishAll();
});

Deno.test("admin: a drained instance has nothing and takes nothing until it is kept", async () => {
  const admin = await withTwoRequests();
  const { call, world } = admin;
  const { state } = await call("admin_drain", { instanceId: "instance-0" });
  assert.equal(state, "draining");
  await untilState(admin, "instance-0", "drained");
  const { requests } = await call("admin_requests", null);
  assert.ok(requests.every(({ instanceId }) => instanceId === "instance-1"));
  assert.equal((await call("admin_keep", { instanceId: "instance-0" })).state, "serving");
  world.submit(["late"], 20);
  await world.finishAll();
});

Deno.test("admin: an instance is added, another removed, and requests go on", async () => {
  const admin = await withTwoRequests();
  const { call, world } = admin;
  assert.deepEqual(await call("admin_add", null), { instanceId: "instance-2", state: "starting" });
  await untilState(admin, "instance-2", "serving");
  const { instanceId, state } = await call("admin_remove", { instanceId: "instance-0" });
  assert.deepEqual([instanceId, state], ["instance-0", "draining"]);
  await untilState(admin, "instance-0", "gone");
  await world.finishAll();
  for (const method of ["admin_drain", "admin_keep", "admin_remove"] as const) {
    await assert.rejects(call(method, { instanceId: "instance-0" }), {
      kind: "not_found",
      message: 'there is no instance "instance-0"; the instances are: instance-1, instance-2',
    });
  }
});

Deno.test("admin: an instance that does not answer is named", async () => {
  const { call, world, owners } = await withTwoRequests();
  world.cluster.network.block("manager", "instance-0");
  const { requests, unreachable } = await call("admin_requests", null);
  assert.deepEqual(unreachable, ["instance-0"]);
  assert.equal(requests.length, 1);
  world.cluster.network.heal("manager", "instance-0");
  assert.equal(owners.size, 2);
  await world.finishAll();
});

Deno.test("admin: requests that no instance has are listed too", async () => {
  const { call, world } = await withTwoRequests();
  for (const instance of world.cluster.aliveInstances) world.cluster.killInstance(instance);
  await world.until(() => world.cluster.manager!.instances().length === 0);
  const { requests } = await call("admin_requests", null);
  const shown = requests.map((one) => [one.requestId, one.instanceId, one.state, one.outputTokens]);
  const delivered = (id: string) => world.requests.get(id)!.tokenIds.length;
  assert.deepEqual(shown, [
    ["a", null, "waiting", delivered("a")],
    ["b", null, "waiting", delivered("b")],
  ]);
  assert.ok(requests.every(({ ageMs }) => ageMs > 0));
  await world.finishAll();
  assert.deepEqual((await call("admin_requests", null)).requests, []);
});

Deno.test("admin: a request that no instance has yet cannot be moved", async () => {
  const { call, world } = await withTwoRequests();
  for (const instanceId of ["instance-0", "instance-1"]) await call("admin_drain", { instanceId });
  world.submit(["late"]);
  const order = { requestId: "late", destinationId: "instance-0" };
  await assert.rejects(call("admin_migrate", order), {
    kind: "conflict",
    message: "no instance has request late yet; try again",
  });
  await call("admin_keep", { instanceId: "instance-0" });
  await world.finishAll();
});

Deno.test("admin: without a manager the operator is told", async () => {
  const { call, world } = await start(null, 2);
  world.cluster.killManager();
  await assert.rejects(call("admin_instances", null), { kind: "unavailable" });
});
