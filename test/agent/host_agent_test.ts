/** The agent of a host, and a manager whose every word the test says. */
import assert from "node:assert/strict";
import type { Peer } from "../../src/bus/bus.ts";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import { ConflictError, LlumnixError, UnavailableError } from "../../src/core/errors.ts";
import { LeaderFence } from "../../src/core/leader_fence.ts";
import type { AgentExited, AgentJoin, AgentStart } from "../../src/core/protocol/agents.ts";
import type { StandingOrders } from "../../src/core/protocol/standing_orders.ts";
import type { Leadership } from "../../src/core/protocol/leadership.ts";
import type { ExitStatus } from "../../src/manager/fleet/launcher.ts";
import { HostAgent } from "../../src/agent/host_agent.ts";
import { until } from "../conformance/bus.ts";
import { ENDLESS_MS } from "../patience.ts";
import { MemoryRecords, quiet } from "../manager/agents/support.ts";

const leads: Leadership = { epoch: 5, leader: "m5" };

/** A process that ends when the test says so. */
class Process {
  readonly signals: string[] = [];
  readonly #exit = Promise.withResolvers<ExitStatus>();
  readonly exited = this.#exit.promise;
  hasEnded = false;

  /** @param obeys the signals at which it ends */
  constructor(readonly pid: number, private readonly obeys = ["SIGTERM", "SIGKILL"]) {}

  end(status: ExitStatus): void {
    this.hasEnded = true;
    this.#exit.resolve(status);
  }

  stop(signal: string): void {
    this.signals.push(signal);
    if (this.obeys.includes(signal)) this.end({ code: null, signal });
  }
}

class World implements AsyncDisposable {
  readonly bus = new InProcessBus();
  readonly joins: AgentJoin[] = [];
  readonly exits: AgentExited[] = [];
  readonly superseded: Leadership[] = [];
  readonly processes = new Map<string, Process>();
  readonly records = new MemoryRecords();
  leadership: Leadership | undefined = leads;
  peer!: Peer;
  agent!: HostAgent;
  obeys = ["SIGTERM", "SIGKILL"];
  /** Launches wait for it. */
  gate: Promise<void> = Promise.resolve();
  readonly replaced: string[] = [];
  /** What the manager does when it is to replace an instance. */
  onReplace: () => Promise<void> = () => Promise.resolve();

  static async open(slots = 1, prepare: (world: World) => void = () => {}): Promise<World> {
    const world = new World();
    prepare(world);
    const { bus } = world;
    await bus.listen("inproc:manager", {
      calls: {
        ping: () => ({ data: null }),
        agent_join: ({ data }, peer) => {
          world.joins.push(data);
          world.peer = peer;
          return { data: { leadership: world.leadership } };
        },
        agent_replace: async ({ data }) => {
          world.replaced.push(data.instanceId);
          await world.onReplace();
          return { data: null };
        },
      },
      notifications: {
        agent_exited: ({ data }) => void world.exits.push(data),
        superseded: ({ data }) => void world.superseded.push(data),
      },
    });
    const agent = world.agent = new HostAgent({
      ...{ bus, clock: realClock, log: quiet, records: world.records },
      fence: new LeaderFence("host a"),
      facts: {
        ...{ host: "a", pid: 1, machine: "m", slots, initialInstances: 1 },
        resources: { cudaDevices: 0, cores: 1, memoryBytes: 1 },
      },
      launcher: {
        launch: async ({ instanceId }) => {
          await world.gate;
          const process = new Process(100 + world.processes.size, world.obeys);
          world.processes.set(instanceId, process);
          return process;
        },
      },
      startOf: (pid) => `start of ${pid}`,
      find: ({ instanceId }) => {
        const process = world.processes.get(instanceId);
        if (process === undefined || process.hasEnded) return null;
        return { hasEnded: () => process.hasEnded, stop: (signal) => process.stop(signal) };
      },
    });
    agent.moveTo("inproc:manager");
    await agent.joined;
    return world;
  }

  async start(instanceId: string, more: Partial<AgentStart> = {}): Promise<number> {
    const order = { instanceId, managerAddress: "inproc:manager", numBlocks: null };
    const data: AgentStart = { ...order, leadership: leads, ...more };
    return (await this.peer.call("agent_start", { data })).data.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent.close();
  }
}

Deno.test("agent: an order of an older epoch is refused, and its manager is told who leads", async () => {
  await using world = await World.open(2);
  const former = { epoch: 4, leader: "m4" };
  await assert.rejects(world.start("instance-0", { leadership: former }), /host a refuses/);
  await assert.rejects(world.start("instance-0", { leadership: undefined }), /host a refuses/);
  assert.equal(world.processes.size, 0);
  const order = { leadership: former, address: "inproc:path-b" };
  await assert.rejects(world.peer.call("path_receive", { data: order }), /host a refuses/);
  await assert.rejects(world.peer.call("path_send", { data: order }), /host a refuses/);
  await world.start("instance-0");
  const data = { instanceId: "instance-0", signal: "SIGKILL", leadership: former } as const;
  world.peer.notify("agent_signal", { data });
  await until(() => world.superseded.length === 5);
  assert.deepEqual(world.superseded, Array(5).fill(leads));
  assert.deepEqual(world.processes.get("instance-0")!.signals, []);
  world.peer.notify("agent_signal", { data: { ...data, leadership: leads } });
  await until(() => world.exits.length === 1);
  assert.deepEqual(world.exits, [{ instanceId: "instance-0", code: null, signal: "SIGKILL" }]);
});

Deno.test("agent: no more instances than slots, none twice, and none whose name is an option", async () => {
  await using world = await World.open(1);
  for (const name of ["--model=x", "../x", ""]) {
    await assert.rejects(world.start(name), /--instance-id/, name);
  }
  const pids = await Promise.all([world.start("instance-0"), world.start("instance-0")]);
  assert.deepEqual([...pids, await world.start("instance-0")], [100, 100, 100]);
  await assert.rejects(
    world.start("instance-1"),
    /host a has no room for instance-1: it has 1 slots \(--host-slots\), taken by instance-0/,
  );
  assert.equal(world.processes.size, 1);
  world.processes.get("instance-0")!.end({ code: 1, signal: null });
  await until(() => world.exits.length === 1);
  await world.start("instance-1");
});

Deno.test("agent: connects again, and tells what runs", async () => {
  await using world = await World.open(2);
  const pid = await world.start("instance-0");
  await world.start("instance-1");
  await world.peer.close();
  world.processes.get("instance-1")!.end({ code: 0, signal: null }); // nobody hears of it
  await until(() => world.joins.length === 2);
  assert.deepEqual(world.joins.map(({ instances }) => instances), [
    [],
    [{ instanceId: "instance-0", pid }],
  ]);
  assert.deepEqual(world.processes.get("instance-0")!.signals, []);
});

Deno.test("agent: an instance whose start nobody heard of runs on, and the next join tells of it", async () => {
  await using world = await World.open(2);
  const gate = Promise.withResolvers<void>();
  world.gate = gate.promise;
  const former = world.peer;
  const started = world.start("instance-0");
  await assert.rejects(Promise.all([started, former.close()]), { kind: "unavailable" });
  await until(() => world.joins.length === 2);
  assert.deepEqual(world.joins[1].starting, ["instance-0"]);
  assert.deepEqual(world.joins[1].instances, []);
  gate.resolve();
  await until(() => world.joins.length === 3);
  assert.deepEqual(world.joins[2].starting, []);
  assert.deepEqual(world.joins[2].instances, [{ instanceId: "instance-0", pid: 100 }]);
  assert.equal(await world.start("instance-0"), 100); // ordered again, it is not started again
  assert.deepEqual(world.processes.get("instance-0")!.signals, []);
});

Deno.test("agent: a start that fails after its connection has ended is told to the next manager", async () => {
  await using world = await World.open(1);
  const gate = Promise.withResolvers<void>();
  world.gate = gate.promise;
  world.start("instance-0").catch(() => {});
  await world.peer.close();
  await until(() => world.joins.length === 2);
  gate.reject(new Error("no such program"));
  await until(() => world.exits.length === 1);
  assert.equal(world.exits[0].instanceId, "instance-0");
  world.gate = Promise.resolve();
  await world.start("instance-1"); // its slot is free
});

Deno.test("agent: a signal to an instance that is being started reaches it", async () => {
  await using world = await World.open(1);
  const gate = Promise.withResolvers<void>();
  world.gate = gate.promise;
  const started = world.start("instance-0");
  const data = { instanceId: "instance-0", signal: "SIGKILL", leadership: leads } as const;
  world.peer.notify("agent_signal", { data });
  await world.peer.call("ping", { data: null }); // it has arrived
  gate.resolve();
  await started;
  assert.deepEqual(world.processes.get("instance-0")!.signals, ["SIGKILL"]);
});

Deno.test("agent: says once why it can join no manager", async () => {
  const warnings: string[] = [];
  const agent = new HostAgent({
    bus: new InProcessBus(),
    clock: { ...realClock, after: (ms, callback) => realClock.after(ms / 100, callback) },
    log: { ...quiet, warn: (message) => void warnings.push(message) },
    records: new MemoryRecords(),
    fence: new LeaderFence("host a"),
    facts: {
      ...{ host: "a", pid: 1, machine: "m", slots: 1, initialInstances: 0 },
      resources: { cudaDevices: 0, cores: 1, memoryBytes: 1 },
    },
    launcher: { launch: () => Promise.reject(new Error("nothing is launched here")) },
    startOf: () => undefined,
    find: () => null,
  });
  agent.moveTo("inproc:nowhere");
  await until(() => warnings.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 100)); // more attempts
  await agent.close();
  assert.equal(warnings.length, 1);
  assert.match(
    warnings[0],
    /^cannot join the manager at inproc:nowhere, and tries again: .*nowhere/,
  );
});

Deno.test("agent: keeps the newest standing orders for the next manager", async () => {
  await using world = await World.open();
  assert.equal(world.joins[0].orders, undefined);
  const ordersOf = (version: number): StandingOrders => ({
    ...{ epoch: 5, version, instanceChange: version, drains: [], hostDrains: [] },
  });
  const keep = async (version: number, leadership = leads) => {
    await world.peer.call("keep_orders", { data: { leadership, orders: ordersOf(version) } });
  };
  await keep(2);
  await keep(1); // overtaken
  await assert.rejects(keep(3, { epoch: 4, leader: "m4" }), /host a refuses/);
  await world.peer.close();
  await until(() => world.joins.length === 2);
  assert.deepEqual(world.joins[1].orders, ordersOf(2));
});

Deno.test("agent: takes the instances of a former agent that still run", async () => {
  const records = ["instance-0", "instance-1"].map((instanceId, i) => ({
    ...{ instanceId, pid: 7 + i, processStart: "s" },
  }));
  await using world = await World.open(1, (before) => {
    before.records.instances = records;
    before.processes.set("instance-1", new Process(8)); // the other one has ended
  });
  assert.deepEqual(world.joins[0].instances, [{ instanceId: "instance-1", pid: 8 }]);
  assert.deepEqual(world.records.instances, [records[1]]);
  await assert.rejects(world.start("instance-2"), /has no room/);
  const data = { instanceId: "instance-1", signal: "SIGTERM", leadership: leads } as const;
  world.peer.notify("agent_signal", { data });
  await until(() => world.exits.length === 1);
  assert.deepEqual(world.exits, [{ instanceId: "instance-1", code: null, signal: null }]);
});

Deno.test("agent: one that stops takes no more instances, and asks those that run to end", async () => {
  await using world = await World.open(2);
  await world.start("instance-0");
  world.obeys = ["SIGKILL"];
  await world.start("instance-1");
  const stopped = world.agent.stop(ENDLESS_MS);
  await until(() => world.joins.length === 2);
  assert.deepEqual([world.joins[1].slots, world.joins[1].initialInstances], [0, 0]);
  await assert.rejects(world.start("instance-2"), /host a is leaving the service/);
  world.agent.kill();
  await stopped;
  const signals = [...world.processes.values()].map((process) => process.signals);
  assert.deepEqual(signals, [["SIGTERM"], ["SIGTERM", "SIGKILL"]]);
  assert.ok(world.records.isCleared);
});

Deno.test("agent: kills what has not ended in time when it stops", async () => {
  await using world = await World.open();
  world.obeys = ["SIGKILL"];
  await world.start("instance-0");
  await world.agent.stop(10);
  assert.deepEqual(world.processes.get("instance-0")!.signals, ["SIGTERM", "SIGKILL"]);
});

Deno.test("agent: one that has left writes no records: they are those of the next agent", async () => {
  await using world = await World.open(2);
  await world.start("instance-0");
  await world.start("instance-1");
  await world.agent.close();
  const left = world.records.instances;
  assert.equal(left.length, 2);
  world.processes.get("instance-0")!.end({ code: 0, signal: null });
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.equal(world.records.instances, left);
});

Deno.test("agent: one that leaves waits for a start under way, so that the next agent finds it", async () => {
  await using world = await World.open();
  const gate = Promise.withResolvers<void>();
  world.gate = gate.promise;
  const started = world.start("instance-0");
  started.catch(() => {}); // its answer is lost
  await until(() => world.agent.instanceIds.length === 1);
  const left = world.agent.close();
  gate.resolve();
  await left;
  assert.deepEqual(world.records.instances.map(({ instanceId }) => instanceId), ["instance-0"]);
});

Deno.test("agent: a host that is full takes an instance in the place of one that runs, and no other", async () => {
  await using world = await World.open(1);
  await world.start("instance-0");
  await assert.rejects(world.start("instance-1", { replaces: "instance-9" }), /has no room/);
  await world.start("instance-1", { replaces: "instance-0" });
  await assert.rejects(world.start("instance-2", { replaces: "instance-0" }), /has no room/);
});

/** An agent that has taken an instance of a former one. */
function withOldInstance(world: World): void {
  world.records.instances = [{ instanceId: "instance-0", pid: 8, processStart: "s" }];
  world.processes.set("instance-0", new Process(8));
}

Deno.test("agent: has an instance replaced by the manager that leads, also if it changes meanwhile", async () => {
  await using world = await World.open(1, withOldInstance);
  const asked = Promise.withResolvers<void>();
  world.onReplace = () => {
    asked.resolve();
    return new Promise(() => {}); // it drains for ever
  };
  const replaced = world.agent.replace("instance-0");
  await asked.promise;
  const next: string[] = [];
  await world.bus.listen("inproc:next", {
    calls: {
      ping: () => ({ data: null }),
      agent_join: () => ({ data: { leadership: { epoch: 6, leader: "m6" } } }),
      agent_replace: ({ data }) => {
        next.push(data.instanceId);
        if (next.length === 1) throw new UnavailableError("this manager does not lead now");
        return { data: null };
      },
    },
  });
  world.agent.moveTo("inproc:next");
  await replaced;
  assert.deepEqual([world.replaced, next], [["instance-0"], ["instance-0", "instance-0"]]);
});

Deno.test("agent: an instance that has ended needs no replacement", async () => {
  await using world = await World.open(1, withOldInstance);
  world.processes.get("instance-0")!.end({ code: 0, signal: null });
  await until(() => world.agent.instanceIds.length === 0);
  await world.agent.replace("instance-0");
  assert.deepEqual(world.replaced, []);
});

Deno.test("agent: a refusal to replace an instance is final; a manager that cannot is named", async () => {
  await using world = await World.open(1, withOldInstance);
  world.onReplace = () => Promise.reject(new ConflictError("there is no room for both"));
  await assert.rejects(world.agent.replace("instance-0"), /^ConflictError: there is no room/);
  world.onReplace = () => {
    throw new LlumnixError("not_found", "agent_replace is not a method of this peer");
  };
  await assert.rejects(world.agent.replace("instance-0"), {
    kind: "conflict",
    message: /the manager at .* is of an older release, .*: upgrade that host first$/,
  });
  assert.equal(world.replaced.length, 2);
});
