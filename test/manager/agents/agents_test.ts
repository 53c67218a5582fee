/** A manager and the agents of two hosts, in one process. */
import assert from "node:assert/strict";
import type { Peer } from "../../../src/bus/bus.ts";
import type { AgentJoin } from "../../../src/core/protocol/agents.ts";
import type { Leadership } from "../../../src/core/protocol/leadership.ts";
import { until } from "../../conformance/bus.ts";
import type { Manager } from "../../../src/manager/manager.ts";
import { MAX_HOSTS } from "../../../src/manager/agents/agents.ts";
import { registrationOf } from "../support.ts";
import { factsOf, untilServing, World } from "./support.ts";

Deno.test("agents: instances are spread over hosts, and start as hosts join", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 3 });
  await manager.startInstances(); // nobody is there: it waits for hosts, and does not fail
  assert.equal(manager.clusterState().expectedInstances, 0);
  const a = world.host("a", { slots: 2 });
  await untilServing(manager, [a], [2]);
  assert.equal(manager.clusterState().expectedInstances, 2); // as many as there is room for
  const b = world.host("b", { slots: 4 });
  await untilServing(manager, [a, b], [2, 1]);
  assert.equal(manager.clusterState().expectedInstances, 3);
  await manager.addInstance();
  await untilServing(manager, [a, b], [2, 2]);
  assert.ok(!world.events.some(({ type }) => type === "start_failed")); // nothing was tried without room
});

Deno.test("agents: without room the refusal says what each host has", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  await assert.rejects(manager.addInstance(), /no host has room .*\(a has 1 of 1\)/);
});

Deno.test("agents: no instance starts on a host that is drained, until it is kept", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a", { slots: 2 }), b = world.host("b", { slots: 1 });
  await untilServing(manager, [a, b], [1, 0]);
  await b.agent.joined;
  const names = () => manager.hosts().map(({ hostName, state }) => `${hostName} ${state}`);
  assert.deepEqual(names(), ["a serving", "b serving"]);
  await manager.drainHost("b");
  assert.deepEqual(names(), ["a serving", "b drained"]);
  await manager.addInstance();
  await untilServing(manager, [a, b], [2, 0]);
  await assert.rejects(manager.addInstance(), /no host has room .*a has 2 of 2, b is drained/);
  manager.keepHost("b");
  await manager.addInstance();
  await untilServing(manager, [a, b], [2, 1]);
});

Deno.test("agents: each host brings its initial instances once, however often it joins", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 0 });
  const a = world.host("a", { initialInstances: 1, slots: 2 });
  const b = world.host("b", { initialInstances: 1, slots: 2 });
  await untilServing(manager, [a, b], [1, 1]);
  await manager.removeInstance(a.agent.instanceIds[0]);
  await until(() => a.agent.instanceIds.length === 0);
  a.agent.moveTo("inproc:elsewhere");
  a.agent.moveTo("inproc:manager");
  await until(() => world.events.filter(({ type }) => type === "host_joined").length === 3);
  await untilServing(manager, [a, b], [0, 1]);
  assert.equal(manager.numWanted, 1);
  const c = world.host("c", { initialInstances: 1 });
  await c.agent.joined;
  await untilServing(manager, [a, b, c], [1, 1, 0]); // one more, where the most slots are free
  assert.equal(manager.numWanted, 2); // not the one that was removed
});

Deno.test("agents: an instance that crashes is replaced, elsewhere if its host fails", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a", { slots: 2 });
  await untilServing(manager, [a], [1]);
  const b = world.host("b");
  await b.agent.joined;
  await a.launched[0].exit({ code: null, signal: "SIGSEGV" });
  await untilServing(manager, [a, b], [0, 1]);
  const lost = world.events.find(({ type }) => type === "lost");
  assert.match((lost as { reason: string }).reason, /was ended by SIGSEGV/);
});

Deno.test("agents: a lost agent ends no instance; one that comes back starts none twice", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 2 });
  const a = world.host("a"), b = world.host("b");
  await untilServing(manager, [a, b], [1, 1]);
  const before = manager.instances().map(({ instanceId }) => instanceId);
  await a.agent.close(); // as if it was killed: nothing is said, and nothing ended
  await until(() => world.events.some(({ type }) => type === "host_left"));
  assert.deepEqual(manager.instances().map(({ instanceId }) => instanceId), before);
  const again = world.host("a", {}, a.records);
  await again.agent.joined;
  assert.deepEqual(again.agent.instanceIds, a.agent.instanceIds);
  await until(() => manager.instances().length === 2);
  assert.equal(again.launched.length + b.launched.length, 1);
  // It is in reach again: the new agent sees its end, and another one starts.
  await a.launched[0].exit({ code: 1, signal: null });
  await until(() => again.launched.length === 1);
  await untilServing(manager, [again, b], [1, 1]);
});

Deno.test("agents: two hosts of one name are refused by naming both", async () => {
  await using world = new World();
  await world.manager();
  const first = world.host("a", { machine: "one", pid: 11 });
  await first.agent.joined;
  const second = world.host("a", { machine: "two", pid: 22 });
  await assert.rejects(
    second.agent.joined,
    /two hosts have the name "a": the one at .* \(process 11\) and the one at .* \(process 22\)/,
  );
  const restarted = world.host("a", { machine: "one", pid: 33 });
  await restarted.agent.joined; // of the same machine: it takes the place of the first
});

Deno.test("agents: two agents of one name on one machine do not take turns", async () => {
  await using world = new World();
  await world.manager();
  const join = async (pid: number) => {
    const peer = await world.bus.connect("inproc:manager", { calls: {} });
    await peer.call("agent_join", { data: { ...factsOf("a"), pid } });
    return peer;
  };
  const first = await join(11);
  await join(22);
  await until(() => !first.isOpen); // it may have ended: the second one is its successor
  await assert.rejects(join(11), /two hosts have the name "a".*process 22.*process 11/);
  assert.equal(world.events.filter(({ type }) => type === "host_joined").length, 2);
});

Deno.test("agents: of too many hosts one without agent and instances is forgotten, for no refused one", async () => {
  await using world = new World();
  const manager = await world.manager();
  const connect = () => world.bus.connect("inproc:manager", { calls: {} });
  const instances = [{ instanceId: "x", pid: 7 }];
  for (let i = 1; i < MAX_HOSTS; i++) {
    const peer = await connect();
    const data = { ...factsOf(`away-${i}`), slots: 0, ...(i === 1 && { instances }) };
    await peer.call("agent_join", { data });
    await peer.close();
  }
  const hostile = await connect();
  await hostile.call("agent_join", { data: { ...factsOf("hostile"), slots: 0 } });
  const join = hostile.call("agent_join", { data: factsOf("other") });
  await assert.rejects(join, /expected hostile, which has joined/);
  await assert.rejects(manager.addInstance(), /away-1 is away, the agent of away-2 is away/);
  const another = await connect();
  await another.call("agent_join", { data: { ...factsOf("another"), slots: 0 } });
  await assert.rejects(manager.addInstance(), /away-1 is away, the agent of away-3 is away/);
});

Deno.test("agents: a host with another model is refused", async () => {
  await using world = new World();
  const settings = { model: "m", dtype: "float32", maxModelLen: 8 };
  await world.manager({}, { settings });
  const { agent, records } = world.host("a", { settings: { ...settings, model: "other" } });
  await assert.rejects(agent.joined, /host a has --model other, and the manager m/);
  await agent.close();
  assert.ok(records.isCleared); // it leaves nothing
});

Deno.test("agents: an agent that stops lets its instances go, and gets no new ones", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  await a.agent.stop(60_000);
  assert.deepEqual(a.launched.map(({ signals }) => signals), [["SIGTERM"]]);
  assert.ok(a.records.isCleared);
  await until(() => manager.instances().length === 0);
  assert.equal(a.launched.length, 1);
  assert.equal(manager.clusterState().expectedInstances, 0);
  await until(() => world.events.some((one) => one.type === "host_left" && one.hasStopped));
});

Deno.test("agents: the next leader takes hosts with their instances; orders of the former are refused", async () => {
  await using world = new World();
  const leading = (leadership: Leadership, superseded: Leadership[] = []) => ({
    cluster: {
      processId: leadership.leader,
      leadership: () => leadership,
      onSuperseded: (known: Leadership) => superseded.push(known),
    },
  });
  const superseded: Leadership[] = [];
  const options = { initialInstances: 0 };
  const first = await world.manager(options, leading({ epoch: 1, leader: "m1" }, superseded));
  const a = world.host("a", { slots: 2, initialInstances: 1 });
  await untilServing(first, [a], [1]);
  const second = await world.manager(
    options,
    { ...leading({ epoch: 2, leader: "m2" }), addresses: ["inproc:second"] },
  );
  const recovered = second.recoverInstances();
  const { id } = a.launched[0];
  const peer = await world.bus.connect("inproc:second", {});
  await peer.call("join", { data: { instanceId: id, isRunning: true } });
  const registration = { ...registrationOf(id, `inproc:${id}`), ...a.launched[0].settings };
  await peer.call("register", { data: registration });
  a.agent.moveTo("inproc:second"); // later than its instance
  await recovered;
  await until(() => second.numWanted === 1);
  assert.deepEqual(second.instances().map(({ instanceId }) => instanceId), [id]);
  assert.equal(a.launched.length, 1); // its slot was known to be taken
  second.kill();
  await until(() => a.launched[0].signals.includes("SIGKILL"));
  // The former leader wakes up, and does not know better.
  a.agent.moveTo("inproc:manager");
  await until(() => superseded.length > 0);
  assert.deepEqual(superseded[0], { epoch: 2, leader: "m2" });
});

Deno.test("agents: a manager that takes over waits for instances before it starts any", async () => {
  await using world = new World();
  const options = { initialInstances: 0 };
  const manager = await world.manager(options);
  const a = world.host("a", { slots: 2, initialInstances: 1 });
  await untilServing(manager, [a], [1]);
  await manager.handOver(10);
  const next = await world.manager(options, { addresses: ["inproc:next"], rejoinWaitMs: 2_000 });
  const recovered = next.recoverInstances();
  a.agent.moveTo("inproc:next");
  await until(() => world.events.filter(({ type }) => type === "host_joined").length === 2);
  const [{ id, settings }] = a.launched;
  const peer = await world.bus.connect("inproc:next", {});
  await peer.call("join", { data: { instanceId: id, isRunning: true } });
  await peer.call("register", { data: { ...registrationOf(id, `inproc:${id}`), ...settings } });
  await recovered;
  assert.equal(next.numWanted, 1);
  assert.equal(a.launched.length, 1);
});

Deno.test("agents: an instance that runs, and does not join, is killed", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  await manager.handOver(10);
  const next = await world.manager(
    { initialInstances: 1 },
    { addresses: ["inproc:next"], instanceTimeoutMs: 100 },
  );
  const recovered = next.recoverInstances();
  a.agent.moveTo("inproc:next");
  await recovered;
  // It hangs, so it does not look for the next manager; its slot is free once it is gone.
  await until(() => a.launched[0].signals.includes("SIGKILL"));
  await until(() => a.launched.length === 2);
});

/** An agent whose every word the test says. */
async function rawAgent(
  world: World,
  facts: Partial<AgentJoin>,
  onStart: (instanceId: string, peer: Peer) => Promise<number>,
  address = "inproc:manager",
): Promise<Peer> {
  const peer = await world.bus.connect(address, {
    calls: {
      ping: () => ({ data: null }),
      keep_orders: () => ({ data: null }),
      agent_start: async ({ data }, peer) => ({
        data: { pid: await onStart(data.instanceId, peer) },
      }),
    },
    notifications: {
      agent_signal: ({ data: { instanceId, signal } }, peer) => {
        peer.notify("agent_exited", { data: { instanceId, code: null, signal } });
      },
    },
  });
  await peer.call("agent_join", { data: { ...factsOf("raw"), ...facts } });
  return peer;
}

const endless = new Promise<never>(() => {});

Deno.test("agents: a start whose answer is lost starts no other instance, if the agent has it", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 0 });
  const starts: string[] = [];
  const start = (instanceId: string, peer: Peer) => {
    starts.push(instanceId);
    peer.close();
    return Promise.resolve(7); // which nobody hears
  };
  await rawAgent(world, {}, start);
  const other = world.host("other", { slots: 0 });
  await other.agent.joined;
  const added = manager.addInstance();
  await until(() => world.events.some(({ type }) => type === "host_left"));
  assert.equal(manager.numInstances, 1); // it is not given up
  await rawAgent(world, { instances: [{ instanceId: "instance-0", pid: 7 }] }, start);
  await until(() => world.events.some(({ type }) => type === "launched"));
  const instance = await world.bus.connect("inproc:manager", {});
  await instance.call("join", { data: { instanceId: "instance-0" } });
  await instance.call("register", { data: registrationOf("instance-0", "inproc:i") });
  assert.equal(await added, "instance-0");
  assert.deepEqual([starts, manager.numInstances, manager.numWanted], [["instance-0"], 1, 1]);
});

Deno.test("agents: a start whose order was lost is tried again once the agent says so", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const starts: string[] = [];
  const start = (instanceId: string, peer: Peer) => {
    starts.push(instanceId);
    if (starts.length === 1) peer.close();
    return Promise.resolve(7);
  };
  await manager.startInstances();
  await rawAgent(world, {}, start);
  await until(() => world.events.some(({ type }) => type === "host_left"));
  await rawAgent(world, {}, start);
  await until(() => world.events.some(({ type }) => type === "launched"));
  assert.deepEqual(starts, ["instance-0", "instance-1"]);
});

Deno.test("agents: an instance that serves is not given up for the answer of its start", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 0 }, { instanceTimeoutMs: 100 });
  const peer = await rawAgent(world, {}, () => endless);
  const added = manager.addInstance();
  await until(() => manager.numInstances === 1);
  const instance = await world.bus.connect("inproc:manager", {
    calls: { ping: () => ({ data: null }) },
  });
  await instance.call("join", { data: { instanceId: "instance-0" } });
  await instance.call("register", { data: registrationOf("instance-0", "inproc:i") });
  await peer.close(); // for good: 100 ms later the manager asks no more
  assert.equal(await added, "instance-0");
  assert.equal(manager.instances().length, 1);
});

Deno.test("agents: nothing starts in place of an instance that runs or starts, and has not joined", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 2 }, { instanceTimeoutMs: 200 });
  let starts = 0;
  const recovered = manager.recoverInstances();
  const facts = { slots: 4, instances: [{ instanceId: "x", pid: 7 }], starting: ["y"] };
  await rawAgent(world, facts, () => {
    starts++;
    return Promise.resolve(8);
  });
  await recovered;
  assert.equal(starts, 0);
  const y = await world.bus.connect("inproc:manager", {});
  await y.call("join", { data: { instanceId: "y" } }); // it was about to start, and is expected
  await y.call("register", { data: registrationOf("y", "inproc:y") });
  assert.equal(starts, 0);
  await until(() => starts === 1); // x hangs
  const killed = world.events.filter(({ type }) => type === "orphan_killed");
  assert.deepEqual(killed, [{ type: "orphan_killed", instanceId: "x" }]);
});

Deno.test("agents: a host that is lost for good takes its share of the instances along", async () => {
  await using world = new World();
  const manager = await world.manager(
    { initialInstances: 0 },
    { instanceTimeoutMs: 40, lostHostMs: 80 },
  );
  const a = world.host("a", { initialInstances: 1 });
  await untilServing(manager, [a], [1]);
  const lost = await rawAgent(world, { initialInstances: 2, slots: 0 }, () => endless);
  assert.equal(manager.numWanted, 3);
  await lost.close();
  await until(() => world.events.some(({ type }) => type === "host_left"));
  assert.equal(manager.numWanted, 3); // it may come back
  await until(() => manager.numWanted === 1);
  await rawAgent(world, { initialInstances: 2, slots: 0 }, () => endless);
  assert.equal(manager.numWanted, 3); // it has
});

Deno.test("agents: a host without its agent keeps its share as long as its instances serve", async () => {
  await using world = new World();
  const manager = await world.manager(
    { initialInstances: 0 },
    { instanceTimeoutMs: 40, lostHostMs: 1 },
  );
  const a = world.host("a", { initialInstances: 1 });
  await untilServing(manager, [a], [1]);
  await a.agent.close();
  await until(() => world.events.some(({ type }) => type === "host_left"));
  await new Promise((resolve) => setTimeout(resolve, 100)); // pings, at which it would be noticed
  assert.equal(manager.numWanted, 1);
});

Deno.test("agents: one that comes back without an instance tells that it has ended", async () => {
  await using world = new World();
  world.onLaunch = () => Promise.resolve(); // it loads for ever
  await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await until(() => a.launched.length === 1);
  await a.agent.close();
  const again = world.host("a");
  await until(() => again.launched.length === 1);
  const failed = world.events.find(({ type }) => type === "start_failed");
  assert.match((failed as { reason: string }).reason, /instance-0 has ended before it was ready/);
});

Deno.test("agents: a lost instance is replaced when its process gives the slot free", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  world.ignoresSignals = true;
  await a.launched[0].manager.close();
  await until(() => world.events.some(({ type }) => type === "lost"));
  await new Promise((resolve) => setTimeout(resolve, 700)); // the attempt that finds no room
  assert.equal(a.launched.length, 1);
  await a.launched[0].exit({ code: null, signal: "SIGKILL" });
  await untilServing(manager, [a], [1]);
  assert.equal(a.launched.length, 2);
});

/** Instances that take requests. */
function numAvailable(manager: Manager): number {
  return manager.clusterState().instances.filter(({ state }) => state === "serving").length;
}

Deno.test("agents: hosts upgraded at the same time give up one instance at a time, and get it back", async () => {
  await using world = new World();
  let drains = 0;
  const available: number[] = [];
  const manager = await world.manager({ initialInstances: 2 }, {
    onEvent: (event) => {
      world.events.push(event);
      if (event.type !== "draining") return;
      drains++;
      available.push(numAvailable(manager));
    },
  });
  const former = [world.host("a", { slots: 2 }), world.host("b", { slots: 2 })];
  await untilServing(manager, former, [1, 1]);
  await manager.addInstance();
  const counts = former.map(({ agent }) => agent.instanceIds.length);
  const hosts = await Promise.all(former.map(async ({ agent, records }, i) => {
    await agent.close();
    const next = world.host("ab"[i], { slots: 2 }, records);
    await next.agent.joined;
    return next;
  }));
  const c = world.host("c", { slots: 4 }); // where a new instance would go otherwise
  await c.agent.joined;
  await Promise.all(hosts.flatMap(({ agent }) => agent.adoptedIds.map((id) => agent.replace(id))));
  await untilServing(manager, [...hosts, c], [...counts, 0]);
  assert.deepEqual(hosts.map(({ launched }) => launched.length), counts);
  assert.deepEqual(hosts.map(({ agent }) => agent.adoptedIds), [[], []]);
  assert.deepEqual([drains, available], [3, [2, 2, 2]]);
  assert.equal(manager.numWanted, 3);
});

Deno.test("agents: the only instance stops once another serves beside it, on a host that is full", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  await a.agent.close();
  world.onLaunch = async (instance) => {
    assert.equal(manager.instances().length, 1); // the old one serves on meanwhile
    await instance.join();
    await instance.register();
  };
  const next = world.host("a", {}, a.records);
  await next.agent.joined;
  const [old] = next.agent.adoptedIds;
  await next.agent.replace(old);
  await until(() => next.agent.instanceIds.length === 1);
  assert.ok(!next.agent.instanceIds.includes(old));
  assert.deepEqual([manager.instances().length, manager.numWanted], [1, 1]);
  await assert.rejects(manager.addInstance(), /no host has room .*a has 1 of 1/);
});

Deno.test("agents: an instance that cannot be replaced serves on, and its agent is told why", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  await a.agent.close();
  world.onLaunch = async (instance) => {
    await instance.join();
    instance.fail({ kind: "usage", message: "the new release lacks this option" });
    await instance.exit({ code: 2, signal: null });
  };
  const next = world.host("a", {}, a.records);
  await next.agent.joined;
  const before = next.agent.adoptedIds;
  await assert.rejects(next.agent.replace(before[0]), {
    kind: "conflict",
    message: /could not start: the new release lacks this option/,
  });
  assert.deepEqual(next.agent.adoptedIds, before);
  assert.equal(numAvailable(manager), 1);
});

Deno.test("agents: tell the versions of their instances, as the manager knows them", async () => {
  await using world = new World();
  world.onLaunch = async (instance) => {
    await instance.join();
    instance.settings = { ...instance.settings, version: "0.9.9 (abc)" };
    await instance.register();
  };
  const manager = await world.manager({ initialInstances: 1 });
  const a = world.host("a");
  await untilServing(manager, [a], [1]);
  const [instanceId] = a.agent.instanceIds;
  assert.deepEqual(await a.agent.versions(), [{ instanceId, version: "0.9.9 (abc)" }]);
  a.agent.moveTo("inproc:nobody");
  assert.deepEqual(await a.agent.versions(), [{ instanceId, version: null }]);
});
