/** Managers that hear instances, on a simulated network and store. */
import assert from "node:assert/strict";
import type { Peer } from "../../../src/bus/bus.ts";
import { Audience } from "../../../src/cluster/leadership/audience.ts";
import { Candidate } from "../../../src/cluster/leadership/candidate.ts";
import { hearingPeriodMs } from "../../../src/cluster/leadership/hearing.ts";
import { ManagerContacts } from "../../../src/cluster/leadership/manager_contacts.ts";
import { Random } from "../../../src/core/random.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { SimStore } from "../../../src/sim/store/sim_store.ts";

const LEASE_MS = 1_000;
/** Below, times are in such periods. */
const PERIOD_MS = hearingPeriodMs(LEASE_MS);
const CALL_TIMEOUT_MS = LEASE_MS / 3;
const managers: readonly string[] = ["m1", "m2"];
const instances = ["i1", "i2", "i3"];

/** Two managers, of which the first leads, and three instances. */
class World {
  readonly clock = new VirtualClock();
  readonly network = new SimNetwork({
    clock: this.clock,
    random: new Random(1),
    meanDelayMs: 1,
    keepAliveMs: 60_000,
  });
  readonly store = new SimStore(this.network);
  readonly audiences = new Map<string, Audience>();
  readonly #candidates = new Map<string, Candidate>();

  static async start(): Promise<World> {
    const world = new World();
    for (const name of managers) {
      await world.addManager(name);
      await world.run(PERIOD_MS);
    }
    for (const name of instances) world.#addInstance(name);
    await world.run(10 * PERIOD_MS);
    assert.deepEqual(world.leaders, ["m1"]);
    return world;
  }

  get leaders(): string[] {
    return managers.filter((name) => this.#candidates.get(name)!.leadership !== null);
  }

  heard(name: string): number {
    return this.audiences.get(name)!.size;
  }

  async run(durationMs: number): Promise<void> {
    const endMs = this.clock.nowMs() + durationMs;
    await this.clock.runUntil(() => this.clock.nowMs() >= endMs);
  }

  cut(a: string, b: string): void {
    this.network.block(a, b);
    this.network.block(b, a);
  }

  heal(a: string, b: string): void {
    this.network.heal(a, b);
    this.network.heal(b, a);
  }

  /** Leaderships that began and ended. */
  readonly changes: string[] = [];

  async addManager(name: string): Promise<void> {
    const node = this.network.addNode(name);
    const audience = new Audience(node.clock, PERIOD_MS);
    this.audiences.set(name, audience);
    await node.bus.listen(`inproc:${name}`, {
      calls: {
        identify: () => ({ data: { process: name } }),
        hear: ({ data }) => {
          audience.note(data.instanceId);
          return { data: null };
        },
      },
    });
    const candidate = new Candidate({
      store: this.store.connect(node, CALL_TIMEOUT_MS),
      clock: node.clock,
      bus: node.bus,
      id: name,
      address: `inproc:${name}`,
      leaseMs: LEASE_MS,
      heard: () => audience.size,
      onChange: ({ type }) => this.changes.push(`${name} ${type}`),
    });
    this.#candidates.set(name, candidate);
  }

  #addInstance(name: string): void {
    const { clock, bus } = this.network.addNode(name);
    const store = this.store.connect({ name, clock, bus }, CALL_TIMEOUT_MS);
    new ManagerContacts({
      store,
      clock,
      bus,
      periodMs: PERIOD_MS,
      call: (manager, options) => manager.call("hear", { data: { instanceId: name } }, options),
    });
  }
}

Deno.test("manager contacts: every manager hears every instance, and forgets those that are silent", async () => {
  const world = await World.start();
  assert.deepEqual(managers.map((name) => world.heard(name)), [3, 3]);
  world.network.kill("i3");
  world.cut("m2", "i2");
  await world.run(3 * PERIOD_MS);
  assert.deepEqual(managers.map((name) => world.heard(name)), [2, 1]);
  world.heal("m2", "i2");
  await world.run(3 * PERIOD_MS);
  assert.deepEqual(managers.map((name) => world.heard(name)), [2, 2]);
});

Deno.test("manager contacts: a leader that hears no instance gives way to a manager that hears them", async () => {
  const world = await World.start();
  for (const name of instances) world.cut("m1", name);
  await world.run(5 * PERIOD_MS);
  assert.deepEqual(world.leaders, ["m2"]);
  for (const name of instances) world.heal("m1", name);
  await world.run(10 * PERIOD_MS);
  assert.deepEqual(world.leaders, ["m2"], "nothing is better now");
});

Deno.test("manager contacts: a leader that hears as few instances as the others goes on", async () => {
  const world = await World.start();
  for (const name of instances) for (const manager of managers) world.cut(manager, name);
  await world.run(10 * PERIOD_MS);
  assert.deepEqual([world.leaders, world.heard("m1"), world.heard("m2")], [["m1"], 0, 0]);
  for (const name of instances) world.network.kill(name);
  await world.run(10 * PERIOD_MS);
  assert.deepEqual(world.leaders, ["m1"]);
});

Deno.test("manager contacts: a manager that has just started keeps the place of one that was killed", async () => {
  const world = await World.start();
  world.network.kill("m2");
  await world.run(4 * PERIOD_MS);
  await world.addManager("m3");
  await world.run(PERIOD_MS / 3); // no instance has found it yet
  world.network.kill("m1");
  await world.run(20 * PERIOD_MS);
  assert.deepEqual(world.changes, ["m1 leads", "m3 leads"]);
});

Deno.test("manager contacts: what a leader that was killed had heard is not compared", async () => {
  const world = await World.start();
  for (const name of instances) world.cut("m2", name);
  await world.run(5 * PERIOD_MS);
  assert.deepEqual([world.leaders, world.heard("m1"), world.heard("m2")], [["m1"], 3, 0]);
  world.network.kill("m1");
  await world.run(20 * PERIOD_MS);
  assert.deepEqual(world.changes, ["m1 leads", "m2 leads"]);
});

Deno.test("manager contacts: no leader gives way for one report, whose manager may have ended", async () => {
  const world = await World.start();
  for (const name of instances) world.cut("m1", name);
  while (world.heard("m1") > 0) await world.run(50);
  const before = world.store.peek("candidates/m2");
  while (world.store.peek("candidates/m2") === before) await world.run(50);
  await world.run(50); // the leader sees it
  world.network.kill("m2");
  await world.run(20 * PERIOD_MS);
  assert.deepEqual(world.changes, ["m1 leads"]);
});

Deno.test("manager contacts: who connects to a manager gets the open connection, and another one is made", async () => {
  const clock = new VirtualClock();
  const random = new Random(1);
  const network = new SimNetwork({ clock, random, meanDelayMs: 20, keepAliveMs: 60_000 });
  const server = new SimStore(network);
  server.set("candidates/m", JSON.stringify({ heard: 0, beat: 1, address: "inproc:m" }), 0);
  const [manager, client] = [network.addNode("m"), network.addNode("c")];
  const opened: Peer[] = [];
  let numCalls = 0;
  await manager.bus.listen("inproc:m", {
    calls: {
      ping: () => {
        numCalls++;
        return { data: null };
      },
    },
    onConnect: (peer) => opened.push(peer),
  });
  const contacts = new ManagerContacts({
    store: server.connect(client, CALL_TIMEOUT_MS),
    clock: client.clock,
    bus: client.bus,
    periodMs: PERIOD_MS,
    call: (peer, options) => peer.call("ping", { data: null }, options),
  });
  const run = (durationMs: number) => {
    const endMs = clock.nowMs() + durationMs;
    return clock.runUntil(() => clock.nowMs() >= endMs);
  };
  await run(2 * PERIOD_MS);
  assert.equal(opened.length, 1);
  assert.ok(numCalls >= 3, `${numCalls} calls`);

  const paces: number[] = [];
  let reason = "";
  const connect = () =>
    contacts.bus.connect("inproc:m", {
      notifications: { report_interval: ({ data }) => paces.push(data.infoIntervalMs) },
      onClose: (_, why) => reason = why,
    });
  const beforeMs = clock.nowMs();
  const peer = await connect();
  assert.equal(clock.nowMs(), beforeMs, "nothing is sent");
  opened[0].notify("report_interval", { data: { infoIntervalMs: 5 } });
  await run(2 * PERIOD_MS);
  assert.deepEqual([paces, opened.length, peer.isOpen], [[5], 2, true]);

  opened[1].close();
  await run(50);
  const second = connect(); // there is none that is open
  await run(200);
  assert.ok((await second).isOpen);
  contacts.close();
  await run(2 * PERIOD_MS);
  assert.deepEqual(opened.map(({ isOpen }) => isOpen), [true, false, true, false]);
  opened[0].close();
  await run(200);
  assert.notEqual(reason, "");
});

Deno.test("audience: has a bound, and counts an instance once", () => {
  const clock = new VirtualClock();
  const audience = new Audience(clock, PERIOD_MS);
  for (let i = 0; i < 5_000; i++) for (let times = 0; times < 2; times++) audience.note(`i${i}`);
  assert.equal(audience.size, 4_096);
  clock.after(PERIOD_MS + 1, () => {});
  clock.step();
  assert.equal(audience.size, 0);
});
