/** What a manager tells `llumnix doctor --cluster` of its hosts. */
import assert from "node:assert/strict";
import type { Message, Peer } from "../../../src/bus/bus.ts";
import { InProcessBus } from "../../../src/bus/in_process_bus.ts";
import type { ProcessReport } from "../../../src/core/protocol/examination.ts";
import { fullVersion } from "../../../src/core/version.ts";
import { AgentHost } from "../../../src/manager/agents/agent_host.ts";
import { Examination } from "../../../src/manager/agents/examination.ts";
import { soleAuthority } from "../../../src/manager/authority.ts";
import { ENDLESS_MS, until } from "../../patience.ts";
import { factsOf, untilServing, World } from "./support.ts";

async function ask(world: World): Promise<Peer> {
  return await world.bus.connect("inproc:manager", {}) as Peer;
}

async function examine(world: World) {
  return (await (await ask(world)).call("examine_cluster", { data: null })).data;
}

Deno.test("examination: each host with its version and clock, instances with their addresses", async () => {
  await using world = new World();
  const manager = await world.manager({ initialInstances: 2 });
  const b = world.host("b", { slots: 3 }), a = world.host("a");
  await manager.startInstances();
  await untilServing(manager, [a, b], [1, 1]);
  const { hosts, instances, refusals, ...rest } = await examine(world);
  assert.deepEqual(hosts.map(({ host, slots, instances }) => [host, slots, instances]), [
    ["a", 1, 1],
    ["b", 3, 1],
  ]);
  for (const { host, process, clock, failure } of hosts) {
    assert.equal(failure, null);
    assert.deepEqual([process!.process, process!.version], [host, fullVersion()]);
    assert.ok(Math.abs(clock!.aheadMs) <= clock!.uncertaintyMs, JSON.stringify(clock)); // the same clock
  }
  assert.deepEqual(instances.map(({ address }) => address).sort(), [
    "inproc:instance-0",
    "inproc:instance-1",
  ]);
  assert.deepEqual(refusals, []);
  assert.deepEqual(rest, { numHostsOmitted: 0, numInstancesOmitted: 0 });
});

Deno.test("examination: a host whose agent is away has a line", async () => {
  await using world = new World();
  await world.manager();
  const a = world.host("a");
  await a.agent.joined;
  a.agent.moveTo("inproc:elsewhere");
  await until(async () => (await examine(world)).hosts[0].failure !== null, "it was away");
  const [gone] = (await examine(world)).hosts;
  assert.deepEqual([gone.host, gone.process, gone.clock], ["a", null, null]);
  assert.match(gone.failure!, /its agent has lost the leader, or has ended/);
});

Deno.test("examination: an agent that hangs costs its limit, and others are told of", async () => {
  const bus = new InProcessBus();
  const hostOf = async (name: string, answer: () => Promise<Message<ProcessReport>>) => {
    await bus.listen(`inproc:${name}`, { calls: { examine: answer } });
    const host = new AgentHost(factsOf(name), () => 0);
    host.join(factsOf(name), await bus.connect(`inproc:${name}`, {}) as Peer);
    return host;
  };
  const hanging = await hostOf("hanging", () => new Promise(() => {}));
  const report = { process: "well", version: "1", timeMs: 0 };
  const well = await hostOf("well", () => Promise.resolve({ data: report }));
  const examination = new Examination({
    authority: soleAuthority,
    agents: { all: [hanging, well], refusals: [] },
    process: "m",
    instances: () => [],
    agentTimeoutMs: 20,
  });
  const { data } = await examination.calls.examine_cluster({ data: null }, well.peer!);
  assert.match(data.hosts[0].failure!, /its agent does not answer: /);
  assert.deepEqual([data.hosts[0].process, data.hosts[1].process?.process], [null, "well"]);
  for (const { peer } of [hanging, well]) await peer!.close();
});

Deno.test("examination: hosts that were refused are told, the latest reason of each", async () => {
  await using world = new World();
  await world.manager({}, { settings: { model: "m", dtype: "float32", maxModelLen: 8 } });
  await world.host("a", { machine: "one" }).agent.joined;
  const settings = { model: "other", dtype: "float32", maxModelLen: 8 };
  await assert.rejects(world.host("a", { machine: "two" }).agent.joined);
  for (let i = 0; i < 3; i++) {
    const peer = await ask(world);
    await assert.rejects(peer.call("agent_join", { data: { ...factsOf("b"), settings } }));
  }
  const { refusals } = await examine(world);
  assert.deepEqual(refusals.map(({ host }) => host), ["a", "b"]);
  assert.match(refusals[0].reason, /two hosts have the name "a"/);
  assert.match(refusals[1].reason, /host b has --model other, and the manager m/);
  assert.ok(refusals.every(({ agoMs }) => agoMs >= 0 && agoMs < ENDLESS_MS));
});

Deno.test("examination: paths between agents are measured, one at a time", async () => {
  await using world = new World();
  await world.manager();
  await Promise.all(["a", "b"].map((name) => world.host(name).agent.joined));
  const peer = await ask(world);
  const measure = async (from: string, to: string) =>
    (await peer.call("measure_path", { data: { from, to } })).data;
  const first = measure("a", "b");
  await assert.rejects(measure("b", "a"), /another path is being measured: one doctor at a time/);
  const speed = await first;
  assert.equal(speed.address, "inproc:path-b");
  assert.ok(speed.bytesPerSecond > 0);
  assert.equal((await measure("b", "a")).address, "inproc:path-a");
  await assert.rejects(measure("a", "a"), /another host than a/);
  await assert.rejects(measure("a", "c"), /no agent of a host "c" has joined/);
});

Deno.test("examination: a host that cannot take part is named, and the next path is measured", async () => {
  await using world = new World();
  await world.manager();
  await world.host("a").agent.joined;
  const old = await world.bus.connect("inproc:manager", { calls: {} });
  await old.call("agent_join", { data: factsOf("old") });
  const peer = await ask(world);
  const measure = async (from: string, to: string) =>
    await peer.call("measure_path", { data: { from, to } });
  await assert.rejects(measure("a", "old"), /old cannot listen: .*path_receive/);
  await assert.rejects(measure("old", "a"), /old cannot send to a: .*path_send/);
  await world.host("b").agent.joined;
  await measure("a", "b");
});

Deno.test("examination: a manager that follows says who it is, and nothing of the cluster", async () => {
  await using world = new World();
  const cluster = {
    processId: "m2",
    hostName: "b",
    leadership: () => null,
    onSuperseded: () => {},
  };
  await world.manager({}, { cluster });
  const peer = await ask(world);
  const { data } = await peer.call("examine", { data: null });
  assert.deepEqual([data.process, data.hostName, data.version], ["m2", "b", fullVersion()]);
  await assert.rejects(peer.call("examine_cluster", { data: null }), /does not lead the cluster/);
  const data2 = { from: "a", to: "b" };
  await assert.rejects(peer.call("measure_path", { data: data2 }), /does not lead the cluster/);
});
