/** See also instance_test.ts, where managers come and go. */
import assert from "node:assert/strict";
import type { InstanceRegistration, JoinRequest } from "../../src/core/protocol/membership.ts";
import { LeaderFence } from "../../src/core/leader_fence.ts";
import { Random } from "../../src/core/random.ts";
import { ManagerSession } from "../../src/instance/manager_session.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { SimNetwork } from "../../src/sim/network/sim_bus.ts";

class World {
  readonly clock = new VirtualClock();
  readonly network = new SimNetwork({
    clock: this.clock,
    random: new Random(1),
    meanDelayMs: 1,
    keepAliveMs: 1000,
  });
  /** Calls that the manager got, in order. */
  readonly calls: string[] = [];
  readonly joins: JoinRequest[] = [];
  mayDrain = true;
  /** Addresses that give no answer, as those of a host without power. */
  readonly silent = new Set<string>();
  /** What the session told the instance. */
  readonly events: string[] = [];
  readonly session: ManagerSession;

  constructor(rejoinTimeoutMs = 1_000) {
    const { bus, clock } = this.network.addNode("a");
    this.session = new ManagerSession({
      bus: {
        listen: bus.listen.bind(bus),
        connect: (address, service, options) =>
          this.silent.has(address) ? new Promise(() => {}) : bus.connect(address, service, options),
      },
      clock,
      fence: new LeaderFence("i"),
      managerAddress: "inproc:manager",
      instanceId: "a",
      incarnation: "1",
      managerWaitMs: 0,
      rejoinTimeoutMs,
      service: {},
      registration: () => ({ instanceId: "a" }) as InstanceRegistration,
      hasEnded: () => this.events.some((event) => event.startsWith("lost")),
      onWait: () => this.events.push("wait"),
      onRejoin: () => this.events.push("rejoin"),
      onLost: (reason) => this.events.push(`lost: ${reason}`),
    });
  }

  async startManager(name = "manager"): Promise<void> {
    const where = name === "manager" ? "" : ` at ${name}`;
    await this.network.addNode(name).bus.listen(`inproc:${name}`, {
      calls: {
        join: ({ data }) => {
          this.calls.push(`join${where}`);
          this.joins.push(data as JoinRequest);
          return { data: { infoIntervalMs: 10, instanceType: "both" } };
        },
        register: () => {
          this.calls.push(`register${where}`);
          return { data: null };
        },
        drain: () => ({ data: { mayDrain: this.mayDrain } }),
      },
    });
  }

  /** Runs the clock until a promise is settled. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settle = () => void (isSettled = true);
    promise.then(settle, settle);
    await this.clock.runUntil(() => isSettled);
    return await promise;
  }
}

Deno.test("ManagerSession: leaves its manager for the one that leads, also without a rejoin timeout", async () => {
  const world = new World(0), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  await world.wait(session.register());
  await world.startManager("leader");
  session.moveTo("inproc:manager"); // there it is
  session.moveTo("inproc:leader");
  await world.clock.runUntil(() => world.events.length > 0);
  assert.deepEqual(world.events, ["rejoin"]);
  assert.deepEqual(world.calls, ["join", "register", "join at leader", "register at leader"]);
  world.network.kill("manager"); // nobody misses it
  await world.clock.runUntil(() => false);
  assert.deepEqual([world.events, session.isConnected], [["rejoin"], true]);
});

Deno.test("ManagerSession: joins the manager that leads while the host of the one before is silent", async () => {
  const world = new World(), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  await world.wait(session.register());
  world.silent.add("inproc:manager");
  world.network.kill("manager");
  await world.clock.runUntil(() => false); // the attempt to join again hangs
  await world.startManager("leader");
  const movedMs = world.clock.nowMs();
  session.moveTo("inproc:leader");
  await world.clock.runUntil(() => world.events.length > 0);
  assert.deepEqual(world.events, ["rejoin"]);
  assert.deepEqual(world.calls.slice(2), ["join at leader", "register at leader"]);
  assert.ok(world.clock.nowMs() - movedMs < 100, "it does not wait for the next attempt");
});

Deno.test("ManagerSession: without a manager it does not join, and may drain", async () => {
  const world = new World(), { session } = world;
  await assert.rejects(world.wait(session.join()), { name: "UnavailableError" });
  assert.equal(await session.askToDrain(), true);
  session.notify("failed", { kind: "internal", message: "" });
  assert.deepEqual([session.isConnected, session.hasRegistered, world.events], [false, false, []]);
});

Deno.test("ManagerSession: a changed registration is sent once there is one", async () => {
  const world = new World(), { session } = world;
  await world.startManager();
  assert.equal((await world.wait(session.join())).infoIntervalMs, 10);
  session.update();
  await world.wait(session.register());
  session.update();
  await world.clock.runUntil(() => world.calls.length === 3);
  assert.deepEqual(world.calls, ["join", "register", "register"]);
  world.mayDrain = false;
  assert.equal(await world.wait(session.askToDrain()), false);
});

Deno.test("ManagerSession: lost before it has registered it is lost for good", async () => {
  const world = new World(), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  world.network.kill("manager");
  await world.clock.runUntil(() => world.events.length > 0);
  assert.deepEqual(world.events, ["lost: the manager is gone"]);
});

Deno.test("ManagerSession: a manager that is lost before it answers the registration is joined again", async () => {
  const world = new World(), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  const registered = session.register();
  world.network.breakConnections("manager", "a");
  await world.wait(registered);
  await world.clock.runUntil(() => world.events.length > 0);
  assert.deepEqual(world.events, ["rejoin"]);
  assert.deepEqual(world.joins.map(({ isRunning }) => isRunning), [false, true]);
});

Deno.test("ManagerSession: lost afterwards it joins again and says what it serves", async () => {
  const world = new World(), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  await world.wait(session.register());
  world.network.breakConnections("manager", "a");
  await world.clock.runUntil(() => world.events.length > 0);
  assert.deepEqual(world.events, ["rejoin"]);
  assert.deepEqual(world.joins.map(({ isRunning }) => isRunning), [false, true]);
  assert.equal(world.joins[1].registration?.instanceId, "a");
  await world.wait(session.close());
  assert.equal(session.isConnected, false);
});

Deno.test("ManagerSession: a manager that hands over is waited for, once, also where a lost one would not be", async () => {
  const world = new World(0), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  await world.wait(session.register());
  session.expectSuccessor(5_000);
  world.network.kill("manager");
  world.clock.after(3_000, () => world.startManager());
  await world.clock.runUntil(() => world.events.length > 0);
  assert.deepEqual(world.events, ["rejoin"]);
  assert.deepEqual(world.calls, ["join", "register", "join", "register"]);
  world.network.kill("manager"); // this one did not say that another follows
  await world.clock.runUntil(() => world.events.length > 1);
  assert.deepEqual(world.events, ["rejoin", "lost: the manager is gone"]);
});

Deno.test("ManagerSession: a successor that does not come in time is not waited for any longer", async () => {
  const world = new World(0), { session } = world;
  await world.startManager();
  await world.wait(session.join());
  await world.wait(session.register());
  session.expectSuccessor(5_000);
  world.network.kill("manager");
  await world.clock.runUntil(() => world.events.length > 0);
  assert.match(world.events[0], /^lost: the manager is gone, and did not come back in 5000 ms$/);
});
