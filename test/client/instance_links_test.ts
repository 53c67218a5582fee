/** Which connections an API server has; what they carry is tested with `ClusterClient`. */
import assert from "node:assert/strict";
import type { InstanceList, InstanceRegistration } from "../../src/core/protocol/membership.ts";
import { Random } from "../../src/core/random.ts";
import { ClientRequest } from "../../src/client/client_request.ts";
import { InstanceLinks } from "../../src/client/instance_links.ts";
import { SimNetwork } from "../../src/sim/network/sim_bus.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { generateRequest, registrationOf } from "../manager/support.ts";

/** Instances `a`, `b` and `c`, and an API server's connections, which know of none yet. */
class World {
  readonly clock = new VirtualClock(0);
  readonly lost: string[] = [];
  readonly registrations: Record<string, InstanceRegistration> = {};
  readonly links: InstanceLinks;
  readonly network = new SimNetwork({
    clock: this.clock,
    random: new Random(1),
    meanDelayMs: 1,
    keepAliveMs: 5_000,
  });
  #version = 0;

  constructor() {
    const { bus, clock } = this.network.addNode("frontend");
    this.links = new InstanceLinks({
      bus,
      clock,
      frontendId: "frontend",
      onOutputs: () => {},
      onLost: ({ instanceId }, reason) => this.lost.push(`${instanceId}: ${reason}`),
    });
  }

  async start(): Promise<void> {
    for (const id of ["a", "b", "c"]) {
      const { bus } = this.network.addNode(id);
      await bus.listen(`inproc:${id}`, { calls: { hello: () => ({ data: null }) } });
      this.registrations[id] = registrationOf(id, `inproc:${id}`);
    }
  }

  list(ids: string, more: Partial<InstanceList> = {}): InstanceList {
    const instances = [...ids].map((id) => this.registrations[id]);
    return { version: this.#version++, instances, expectedInstances: ids.length, ...more };
  }

  async pass(ms: number): Promise<void> {
    const endMs = this.clock.nowMs() + ms;
    this.clock.after(ms, () => {});
    await this.clock.runUntil(() => this.clock.nowMs() >= endMs);
  }

  get connected(): string {
    return this.links.connected.map(({ instanceId }) => instanceId).sort().join("");
  }
}

async function withWorld(body: (world: World) => Promise<void>): Promise<void> {
  const world = new World();
  await world.start();
  await body(world);
  world.lost.length = 0;
  world.links.close("the end");
  await world.pass(1_000);
  assert.deepEqual([world.connected, world.lost], ["", []]);
}

Deno.test("instance links: instances that do not join the next manager are given up, unless it is lost too", () =>
  withWorld(async (world) => {
    const { links, lost } = world;
    links.update(world.list("abc"), true);
    await world.pass(50);
    links.update(world.list("a"), true); // of the next manager
    links.update(world.list("ab"), false);
    await world.pass(4_900);
    assert.deepEqual([world.connected, lost], ["abc", []]);
    await world.pass(200);
    assert.deepEqual(lost.splice(0), ["c: it has not joined the manager that is there now"]);
    assert.equal(world.connected, "ab");

    links.update(world.list(""), true);
    links.noteManagerLost();
    await world.pass(10_000);
    assert.deepEqual([world.connected, lost], ["ab", []]);
  }));

Deno.test("instance links: there are those that the manager knows", () =>
  withWorld(async (world) => {
    const { links, lost } = world;
    assert.throws(() => links.to("a"), /a is not known here yet/);
    links.update(world.list("ab"), true);
    await world.pass(50);
    assert.equal(world.connected, "ab");
    links.update(world.list("bc", { stopped: ["a"] }), false);
    links.update(world.list("c"), false);
    await world.pass(50);
    assert.equal(world.connected, "c");
    assert.deepEqual(lost, ["a: it was stopped", "b: the manager has removed it"]);
    links.update(world.list("a"), true);
    await world.pass(50);
    assert.equal(world.connected, "ac", "another manager may not know all yet");
    world.registrations.a = registrationOf("a", "inproc:b");
    links.update(world.list("a"), false);
    assert.equal(lost.at(-1), "a: it has another address now");
    await world.pass(600);
    assert.equal(links.to("a").registration.address, "inproc:b");
  }));

Deno.test("instance links: one that ends is made again", () =>
  withWorld(async (world) => {
    world.links.update(world.list("ab"), true);
    await world.pass(50);
    world.network.breakConnections("frontend", "a");
    await world.pass(50);
    assert.equal(world.connected, "b");
    assert.equal(world.lost.length, 1);
    await world.pass(600);
    assert.equal(world.connected, "ab");
  }));

Deno.test("instance links: none is made after the close", () =>
  withWorld(async (world) => {
    const { links } = world;
    links.update(world.list("a"), true);
    await world.pass(50);
    links.close("the end");
    assert.throws(() => links.to("a"), {
      kind: "unavailable",
      message: /server is closing and does not connect to a/,
    });
    await world.pass(50);
    assert.deepEqual([...links.all], []);
  }));

Deno.test("instance links: the least used is the first of those with the fewest requests, and no decode instance while others are there", () =>
  withWorld(async (world) => {
    const { links } = world;
    assert.equal(links.leastUsed(), null);
    world.registrations.c = { ...world.registrations.c, instanceType: "decode" };
    links.update(world.list("cba"), true);
    await world.pass(50);
    const give = (id: string) =>
      new ClientRequest(generateRequest(crypto.randomUUID()), () => {}).giveTo(links.to(id));
    assert.equal(links.leastUsed()?.instanceId, "a");
    give("a");
    assert.equal(links.leastUsed()?.instanceId, "b");
    give("b");
    assert.equal(links.leastUsed()?.instanceId, "a");
    links.update(world.list("c"), false);
    assert.equal(links.leastUsed()?.instanceId, "c");
  }));

Deno.test("instance links: who waits for an instance is told when it serves", () =>
  withWorld(async (world) => {
    const { links } = world;
    const waits = ["a", "a", "b"].map((id) => links.untilServing(id));
    links.update(world.list("a"), true);
    links.update(world.list(""), false);
    await Promise.all(waits.slice(0, 2));
    let isTold = false;
    waits[2].then(() => isTold = true);
    await world.pass(50);
    assert.equal(isTold, false);
    links.update(world.list("b"), false);
    await Promise.all([waits[2], links.untilServing("b")]);
  }));
