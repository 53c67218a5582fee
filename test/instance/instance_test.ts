import assert from "node:assert/strict";
import type { Peer } from "../../src/bus/bus.ts";
import type { Leadership } from "../../src/core/protocol/leadership.ts";
import type { InstanceRegistration, JoinRequest } from "../../src/core/protocol/membership.ts";
import type { MigrationGroup } from "../../src/core/protocol/migration.ts";
import { Random } from "../../src/core/random.ts";
import { loadNullExecutor } from "../../src/executor/null/null_executor.ts";
import { Instance, type InstanceEnd } from "../../src/instance/instance.ts";
import type { MigrationBackend } from "../../src/kv/transfer/backend.ts";
import { type NetworkConfig, SimNetwork } from "../../src/sim/network/sim_bus.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { engineOptions } from "./support.ts";

/** An instance on a simulated network, and managers that come and go. */
class World {
  readonly clock = new VirtualClock();
  readonly network: SimNetwork;
  readonly joins: JoinRequest[] = [];
  readonly registrations: InstanceRegistration[] = [];
  /** An instance registers; its answer is about to be sent. */
  onRegister = () => {};
  /** It asked to leave. */
  numLeaves = 0;
  numInfos = 0;
  manager: Peer | null = null;
  /** Who leads, as the instance told its manager. */
  readonly superseded: Leadership[] = [];
  /** Of the manager; undefined: there is no cluster. */
  leadership: Leadership | undefined = undefined;
  end: InstanceEnd | null = null;
  readonly instance: Instance;
  readonly backendFailure = Promise.withResolvers<string>();
  /** Generations of the groups that the backend was to join. */
  readonly joined: number[] = [];
  readonly backend = {
    name: "grouped",
    isReady: true,
    endpoint: {},
    failed: this.backendFailure.promise,
    join: ({ generation }: MigrationGroup) => {
      this.joined.push(generation);
      return Promise.resolve([]);
    },
    close: () => Promise.resolve(),
  } as unknown as MigrationBackend;

  get numRegistered(): number {
    return this.registrations.length;
  }

  constructor(rejoinTimeoutMs: number, network: Partial<NetworkConfig> = {}) {
    this.network = new SimNetwork({
      clock: this.clock,
      random: new Random(1),
      meanDelayMs: 1,
      keepAliveMs: 1000,
      ...network,
    });
    const { bus, clock } = this.network.addNode("instance-0");
    this.instance = new Instance({
      options: engineOptions(),
      instanceId: "instance-0",
      managerAddress: "inproc:manager",
      hostShare: 1,
      pid: 1,
      clock,
      bus,
      loadExecutor: loadNullExecutor,
      rejoinTimeoutMs,
      migration: {
        limits: { lastStageMaxBlocks: 1, maxStages: 1 },
        openBackend: () => this.backend,
      },
    });
  }

  async startManager(): Promise<void> {
    await this.network.addNode("manager").bus.listen("inproc:manager", {
      calls: {
        join: ({ data }, peer) => {
          this.joins.push(data);
          this.manager = peer;
          const { leadership } = this;
          return { data: { infoIntervalMs: 10, instanceType: "both", leadership } };
        },
        register: ({ data }) => {
          this.registrations.push(data);
          this.onRegister();
          return { data: null };
        },
        drain: () => {
          this.numLeaves++;
          return { data: { mayDrain: true } };
        },
      },
      notifications: {
        info: () => void this.numInfos++,
        superseded: ({ data }) => void this.superseded.push(data),
      },
    });
  }

  async startInstance(): Promise<void> {
    this.instance.run().then((end) => this.end = end);
    await this.until(() => this.numRegistered === 1);
    await this.pass(20);
  }

  async until(condition: () => boolean): Promise<void> {
    assert.ok(await this.clock.runUntil(condition), `never: ${condition}`);
  }

  async pass(ms: number): Promise<void> {
    const endMs = this.clock.nowMs() + ms;
    this.clock.after(ms, () => {});
    await this.until(() => this.clock.nowMs() >= endMs);
  }
}

Deno.test("Instance: goes on without its manager, and joins the next one", async () => {
  const world = new World(5_000);
  await world.startManager();
  await world.startInstance();
  world.network.kill("manager");
  await world.pass(2_000);
  assert.equal(world.end, null);
  await world.startManager();
  const numInfos = world.numInfos;
  await world.until(() => world.numInfos > numInfos && world.numRegistered === 2);
  assert.deepEqual(
    world.joins.map(({ isRunning, registration }) => [isRunning, registration?.instanceId]),
    [[false, undefined], [true, "instance-0"]],
    "who comes back says what it serves",
  );
  world.manager!.notify("shutdown", { data: {} });
  await world.until(() => world.end !== null);
  assert.equal(world.end!.exitCode, 0);
});

Deno.test("Instance: refuses each decision of a manager whose leadership is over", async () => {
  const world = new World(5_000);
  const [before, now] = [{ epoch: 4, leader: "a" }, { epoch: 5, leader: "b" }];
  world.leadership = now;
  await world.startManager();
  await world.startInstance();
  const manager = world.manager!;
  for (const data of [{ leadership: before }, {}, { leadership: { epoch: 5, leader: "c" } }]) {
    const order = { ...data, secret: "s", generation: 7, members: [] };
    const calls = [
      manager.call("migration_group", { data: order }),
      manager.call("handover", { data: { ...data, waitMs: 1 } }),
    ];
    for (const method of ["shutdown", "stay", "keep"] as const) manager.notify(method, { data });
    const refusals: string[] = [];
    for (const call of calls) call.catch((error: Error) => refusals.push(error.message));
    await world.until(() => refusals.length === calls.length);
    for (const refusal of refusals) {
      assert.match(refusal, /^instance-0 refuses a decision of .*: b \(epoch 5\) leads$/);
    }
    await world.pass(50);
    assert.deepEqual(world.superseded.splice(0), Array(5).fill(now));
  }
  assert.deepEqual([world.end, world.joined], [null, []]);

  // The next leader is obeyed.
  manager.notify("shutdown", { data: { leadership: { epoch: 6, leader: "a" } } });
  await world.until(() => world.end !== null);
  assert.deepEqual(world.superseded, []);
});

Deno.test("Instance: does not join again a manager whose leadership is over", async () => {
  const world = new World(5_000);
  world.leadership = { epoch: 5, leader: "b" };
  await world.startManager();
  await world.startInstance();
  world.network.kill("manager");
  world.leadership = { epoch: 4, leader: "a" };
  await world.startManager();
  await world.until(() => world.superseded.length >= 2);
  assert.equal(world.numRegistered, 1);
  world.leadership = { epoch: 6, leader: "a" };
  await world.until(() => world.numRegistered === 2);
  assert.equal(world.end, null);
});

Deno.test("Instance: a connection that breaks again and again is one attempt at a time", async () => {
  const world = new World(60_000);
  await world.startManager();
  await world.startInstance();
  for (let i = 0; i < 5; i++) {
    const numJoins = world.joins.length;
    world.network.breakConnections("manager", "instance-0");
    await world.until(() => world.joins.length > numJoins);
    world.network.breakConnections("manager", "instance-0"); // before the answer is there
  }
  await world.pass(5_000);
  const numJoins = world.joins.length;
  await world.pass(10_000);
  assert.equal(world.joins.length, numJoins);
  assert.equal(world.network.numConnections, 1);
  assert.equal(world.end, null);
});

Deno.test("Instance: a manager that answers and is gone at the same moment is sought again", async () => {
  for (let seed = 1; seed <= 10; seed++) {
    // Its last answer arrives as late as the end of the connection.
    const world = new World(60_000, { random: new Random(seed), overtakeChance: 1 });
    await world.startManager();
    await world.startInstance();
    world.onRegister = () => world.clock.soon(() => world.network.kill("manager"));
    world.network.breakConnections("manager", "instance-0");
    await world.until(() => world.numRegistered === 2);
    await world.pass(100);
    world.onRegister = () => {};
    await world.startManager();
    await world.pass(10_000);
    assert.equal(world.numRegistered, 3, `seed ${seed}`);
  }
});

Deno.test("Instance: gives up when no manager comes in time", async () => {
  const world = new World(5_000);
  await world.startManager();
  await world.startInstance();
  world.network.kill("manager");
  await world.until(() => world.end !== null);
  assert.equal(world.end!.exitCode, 1);
  assert.match(world.end!.reason, /did not come back in 5000 ms/);
  assert.equal(await world.instance.close(), false);
});

Deno.test("Instance: asked to stop as it has registered, it says so to the manager, which counts on it", async () => {
  const world = new World(0);
  await world.startManager();
  world.onRegister = () => world.instance.drain("got SIGTERM"); // has yet to hear the answer
  await world.startInstance();
  await world.until(() => world.end !== null);
  assert.equal(world.numLeaves, 1);
  assert.equal(world.end!.exitCode, 0);
});

Deno.test("Instance: without a time to wait it ends with its manager", async () => {
  const world = new World(0);
  await world.startManager();
  await world.startInstance();
  world.network.kill("manager");
  await world.until(() => world.end !== null);
  assert.match(world.end!.reason, /the manager is gone$/);
});

Deno.test("Instance: an invitation to a group that comes late, or again, does not set it back", async () => {
  const world = new World(0);
  await world.startManager();
  await world.startInstance();
  const errors: string[] = [];
  for (const [secret, generation] of [["s", 1], ["s", 3], ["s", 2], ["s", 3], ["t", 1]] as const) {
    const data: MigrationGroup = { secret, generation, members: [] };
    world.manager!.call("migration_group", { data }).catch(({ message }) => errors.push(message));
    await world.pass(20);
  }
  assert.deepEqual(world.joined, [1, 3, 3, 1]);
  assert.equal(errors.length, 1);
  assert.match(errors[0], /group 2 has been replaced by group 3/);
});

for (const isThere of [true, false]) {
  const to = isThere ? "its manager" : "the next manager";
  Deno.test(`Instance: tells ${to} that its migration backend has failed, and serves on`, async () => {
    const world = new World(60_000);
    await world.startManager();
    await world.startInstance();
    if (!isThere) world.network.kill("manager");
    world.backendFailure.resolve("its thread died");
    await world.pass(1_000);
    if (!isThere) await world.startManager();
    await world.until(() => world.numRegistered === 2);
    await world.pass(1_000);
    assert.deepEqual(
      world.registrations.map(({ migration, migrationFailure }) => [
        migration?.backend,
        migrationFailure,
      ]),
      [["grouped", undefined], [undefined, "its thread died"]],
    );
    assert.equal(world.end, null);
  });
}

Deno.test("Instance: tells its manager of a migration backend that failed while it registered", async () => {
  const world = new World(60_000);
  world.onRegister = () => world.backendFailure.resolve("its thread died");
  await world.startManager();
  await world.startInstance();
  await world.pass(1_000);
  const failures = world.registrations.map(({ migrationFailure }) => migrationFailure);
  assert.deepEqual(failures, [undefined, "its thread died"]);
  assert.equal(world.end, null);
});
