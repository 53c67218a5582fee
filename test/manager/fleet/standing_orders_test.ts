/** What operators have ordered outlives the manager: instances and agents give it to the next one. */
import assert from "node:assert/strict";
import type { Peer } from "../../../src/bus/bus.ts";
import { InProcessBus } from "../../../src/bus/in_process_bus.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { Leadership } from "../../../src/core/protocol/leadership.ts";
import { isNewer, type StandingOrders } from "../../../src/core/protocol/standing_orders.ts";
import { Manager } from "../../../src/manager/manager.ts";
import { until } from "../../conformance/bus.ts";
import { pause } from "../../patience.ts";
import { managerOptions, registrationOf } from "../support.ts";

/** An instance that keeps orders, and gives them to each manager that it joins. */
class Keeper {
  orders: StandingOrders | undefined = undefined;
  shutdowns = 0;
  peer!: Peer;

  constructor(private readonly world: World, readonly id: string, readonly hostName: string) {}

  async join(address: string): Promise<void> {
    this.peer = await this.world.bus.connect(address, {
      calls: {
        ping: () => ({ data: null }),
        keep_orders: ({ data }) => {
          this.orders = data.orders;
          return { data: null };
        },
      },
      notifications: { shutdown: () => void this.shutdowns++ },
    });
    const { id, orders } = this;
    await this.peer.call("join", { data: { instanceId: id, isRunning: true, orders } });
    const registration = { ...registrationOf(id, `inproc:${id}`), hostName: this.hostName };
    await this.peer.call("register", { data: registration });
  }
}

class World implements AsyncDisposable {
  readonly bus = new InProcessBus();
  readonly #managers: Manager[] = [];

  /** @param epoch null: there is no cluster */
  async manager(epoch: number | null, initialInstances = 0): Promise<Manager> {
    const leadership: Leadership = { epoch: epoch ?? 0, leader: `m${epoch}` };
    const manager = await Manager.listen({
      bus: this.bus,
      addresses: [`inproc:m${this.#managers.length}`],
      options: { ...managerOptions, initialInstances },
      launcher: { launch: () => Promise.reject(new Error("nothing is launched here")) },
      clock: realClock,
      stopTimeoutMs: 10,
      rejoinWaitMs: 10,
      cluster: epoch === null
        ? undefined
        : { processId: leadership.leader, leadership: () => leadership, onSuperseded: () => {} },
    });
    this.#managers.push(manager);
    return manager;
  }

  async instances(...names: [id: string, hostName: string][]): Promise<Keeper[]> {
    const keepers = names.map(([id, hostName]) => new Keeper(this, id, hostName));
    await this.join(keepers);
    return keepers;
  }

  /** They join the latest manager. */
  async join(keepers: readonly Keeper[]): Promise<void> {
    for (const keeper of keepers) await keeper.join(`inproc:m${this.#managers.length - 1}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const manager of this.#managers) await manager.stop();
  }
}

const versionsOf = (keepers: readonly Keeper[]) => keepers.map(({ orders }) => orders?.version);
const statesOf = (manager: Manager) =>
  Object.fromEntries(
    manager.clusterState().instances.map(({ instanceId, state }) => [instanceId, state]),
  );
const hostsOf = (manager: Manager) =>
  Object.fromEntries(manager.hosts().map(({ hostName, state }) => [hostName, state]));

for (const epoch of [null, 1]) {
  const place = epoch === null ? "a manager that starts again" : "the next leader";
  Deno.test(`standing orders: ${place} goes on with drains and the number of instances`, async () => {
    await using world = new World();
    const first = await world.manager(epoch, 4);
    const keepers = await world.instances(["a", "one"], ["b", "two"], ["c", "three"], [
      "d",
      "four",
    ]);
    assert.equal(first.numWanted, 4);
    first.drain("a");
    first.drainHost("two", 1);
    first.removeInstance("c");
    assert.equal(first.numWanted, 3);
    await until(() => keepers.every(({ orders }) => orders?.drains.length === 3));
    await first.handOver(0);
    await Promise.all(keepers.map(({ peer }) => peer.close()));

    const second = await world.manager(epoch === null ? null : epoch + 1, 4);
    const recovered = second.recoverInstances(); // its options say 4, and one was removed
    await world.join(keepers);
    const states = statesOf(second);
    const isDraining = (id: string) => /drain/.test(states[id]);
    assert.deepEqual(["a", "b", "c", "d"].map(isDraining), [true, true, true, false]);
    assert.match(hostsOf(second).two, /drain/);
    assert.deepEqual([hostsOf(second).one, hostsOf(second).four], ["serving", "serving"]);
    assert.equal(second.numWanted, 3);
    await until(() => keepers[2].shutdowns === 1); // its removal goes on to the end
    assert.deepEqual(keepers.map(({ shutdowns }) => shutdowns), [0, 0, 1, 0]);
    await recovered.catch(() => {});

    // Whatever the operator changes here holds, also at the third manager.
    second.keepInstance("a");
    second.keepHost("two");
    await until(() => keepers[0].orders!.hostDrains.length === 0);
    assert.deepEqual(keepers[0].orders!.drains.map(({ instanceId }) => instanceId), ["c"]);
  });
}

Deno.test("standing orders: the newest copy counts, and not what an operator has decided since", async () => {
  await using world = new World();
  const first = await world.manager(1);
  const keepers = await world.instances(["a", "one"], ["b", "two"]);
  first.drainHost("one");
  await until(() => keepers.every(({ orders }) => orders?.hostDrains.length === 1));
  const [a, b] = keepers;
  await b.peer.close(); // it misses what follows
  first.keepHost("one");
  first.drainHost("two");
  await until(() => a.orders!.hostDrains[0]?.hostName === "two");
  await first.handOver(0);
  const second = await world.manager(2);
  await world.join([b]);
  assert.match(hostsOf(second).one ?? "none", /drain/); // all that is known so far
  await world.join([a]);
  assert.equal(hostsOf(second).one, "serving");
  assert.match(hostsOf(second).two, /drain/);
  second.keepHost("two");
  await b.peer.close();
  await world.join([b]); // with whatever copy
  assert.equal(hostsOf(second).two, "serving");
  await until(() => a.orders!.hostDrains.length === 0 && a.orders!.epoch === 2);
});

Deno.test("standing orders: an instance that was kept serves, although it has an older copy", async () => {
  await using world = new World();
  const first = await world.manager(1, 2);
  const [a, b] = await world.instances(["a", "one"], ["b", "two"]);
  first.removeInstance("a").catch(() => {});
  await until(() => [a, b].every(({ orders }) => orders?.drains.length === 1));
  await a.peer.close(); // it misses what follows
  first.keepInstance("a");
  await until(() => b.orders!.drains.length === 0);
  await first.handOver(0);
  const second = await world.manager(2, 2);
  await world.join([a]);
  assert.match(statesOf(second).a, /drain/); // all that is known so far
  await world.join([b]);
  assert.equal(statesOf(second).a, "serving");
  assert.equal(second.numWanted, 2);
  second.drain("a");
  await b.peer.close();
  await world.join([b]); // with whatever copy
  assert.match(statesOf(second).a, /drain/);
});

Deno.test("standing orders: an instance that comes to a host which was kept meanwhile serves", async () => {
  await using world = new World();
  const first = await world.manager(1);
  const keepers = await world.instances(["a", "one"], ["b", "one"]);
  first.drainHost("one");
  await until(() => keepers.every(({ orders }) => orders?.drains.length === 2));
  await first.handOver(0);
  const second = await world.manager(2);
  const [a, b] = keepers;
  await world.join([a]);
  second.keepHost("one");
  await world.join([b]);
  assert.deepEqual(statesOf(second), { a: "serving", b: "serving" });
});

Deno.test("standing orders: instances of one host go on to drain in turn at the next manager", async () => {
  await using world = new World();
  const first = await world.manager(1);
  const keepers = await world.instances(["a", "one"], ["b", "one"], ["c", "two"]);
  first.drainHost("one", 1);
  await until(() => keepers.every(({ orders }) => orders?.drains.length === 1));
  await first.handOver(0);
  const second = await world.manager(2);
  await world.join(keepers);
  assert.deepEqual(keepers.map(({ id }) => /drain/.test(statesOf(second)[id])), [
    true,
    false,
    false,
  ]);
});

Deno.test("standing orders: they drain in turn also if the next manager hears of another one first", async () => {
  for (const order of [[1, 0, 2], [2, 1, 0]]) {
    await using world = new World();
    const first = await world.manager(1);
    const keepers = await world.instances(["a", "one"], ["b", "one"], ["c", "two"]);
    first.drainHost("one", 1);
    await until(() => keepers.every(({ orders }) => orders?.drains.length === 1));
    await first.handOver(0);
    const second = await world.manager(2);
    await world.join(order.map((i) => keepers[i]));
    const draining = Object.values(statesOf(second)).filter((state) => /drain/.test(state));
    assert.equal(draining.length, 1, JSON.stringify(statesOf(second)));
  }
});

Deno.test("standing orders: without orders nothing is sent", async () => {
  await using world = new World();
  await world.manager(1);
  const keepers = await world.instances(["a", "one"]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(versionsOf(keepers), [undefined]);
});

Deno.test("standing orders: a manager that starts again takes them over, although it has sent some", async () => {
  await using world = new World();
  const first = await world.manager(null);
  const [a, b] = await world.instances(["a", "one"], ["b", "two"]);
  first.drain("b");
  await until(() => a.orders?.drains.length === 1);
  const old = a.orders!;
  await first.handOver(0);
  await pause(5); // a process does not start again within the same millisecond
  const second = await world.manager(null);
  const [c] = await world.instances(["c", "three"]);
  second.drain("c");
  await until(() => c.orders?.drains.length === 1);
  assert.ok(isNewer(c.orders!, old)); // else those who have the old ones would not take these
  await world.join([a, b]);
  assert.match(statesOf(second).b, /drain/);
  await until(() => c.orders!.drains.length === 2);
});
