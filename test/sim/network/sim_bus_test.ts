import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import type { BusLimits } from "../../../src/bus/bus.ts";
import type { AnyBus, AnyPeer as Peer } from "../../../src/bus/transport.ts";
import { type Clock, realClock, sleep } from "../../../src/core/clock.ts";
import { Random } from "../../../src/core/random.ts";
import { type NetworkConfig, SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { rejection, testBus } from "../../conformance/bus.ts";

/** Real time without the 2 ms that a short timer takes. */
const hastyClock: Clock = {
  ...realClock,
  after(delayMs, callback) {
    if (delayMs > 1) return realClock.after(delayMs, callback);
    const immediate = setImmediate(callback);
    return () => clearImmediate(immediate);
  },
};

let addresses = 0;
testBus({
  name: "simulated",
  open: (limits: BusLimits) =>
    new SimNetwork({
      clock: hastyClock,
      random: new Random(1),
      meanDelayMs: 0.1,
      keepAliveMs: 1000,
      limits,
    }).addNode("node").bus,
  freshAddress: () => `inproc:address-${addresses++}`,
});

interface World {
  readonly clock: VirtualClock;
  readonly network: SimNetwork;
  /** Connecting end, of node `a`. */
  readonly near: Peer;
  readonly far: Peer;
  /** What either end saw, with its time. */
  readonly events: [nowMs: number, what: string][];
}

/** Runs `body` on a virtual clock with a connection from node `a` to node `b`. */
async function withConnection(
  seed: number,
  body: (world: World) => Promise<void>,
  chances: Pick<NetworkConfig, "repeatChance" | "overtakeChance"> = {},
): Promise<void> {
  const clock = new VirtualClock();
  const network = new SimNetwork({
    clock,
    random: new Random(seed),
    meanDelayMs: 10,
    keepAliveMs: 1000,
    ...chances,
  });
  const a = network.addNode("a"), b = network.addNode("b");
  const events: World["events"] = [];
  const see = (what: string) => void events.push([clock.nowMs(), what]);
  const run = async () => {
    let far!: Peer;
    const bus: AnyBus = b.bus;
    await bus.listen("inproc:b", {
      onConnect: (peer) => far = peer,
      notifications: { say: ({ data }) => see(`b got ${data}`) },
      onClose: () => see("b lost it"),
    });
    const near = await (a.bus as AnyBus).connect("inproc:b", {
      notifications: { say: ({ data }) => see(`a got ${data}`) },
      onClose: () => see("a lost it"),
    });
    await body({ clock, network, near, far, events });
  };
  let outcome: unknown = "it never ended";
  run().then(() => outcome = null, (error) => outcome = error);
  await clock.runUntil(() => outcome !== "it never ended");
  if (outcome !== null) throw outcome;
}

const seen = ({ events }: World) => events.map(([, what]) => what);

Deno.test("sim bus: messages take time and keep their order", () =>
  withConnection(1, async (world) => {
    const { clock, near } = world;
    const startMs = clock.nowMs();
    for (let i = 0; i < 20; i++) {
      near.notify("say", { data: i });
      await sleep(clock, 1);
    }
    await sleep(clock, 200);
    assert.deepEqual(seen(world), Array.from({ length: 20 }, (_, i) => `b got ${i}`));
    assert.ok(world.events[0][0] >= startMs + 5);
    assert.ok(new Set(world.events.map(([ms]) => ms)).size > 2);
  }));

/** What arrives of 50 messages, sent one by one and followed by the end of the connection. */
async function arrivalsOf(world: World): Promise<number[]> {
  const { clock, near } = world;
  for (let i = 0; i < 50; i++) {
    near.notify("say", { data: i });
    await sleep(clock, 1);
  }
  await near.close();
  await sleep(clock, 1000);
  const [end] = seen(world).splice(-1);
  assert.ok(end.endsWith("lost it"), "nothing comes behind the end");
  return seen(world).flatMap((what) => /^b got (\d+)$/.exec(what)?.[1] ?? []).map(Number);
}

Deno.test("sim bus: messages may be repeated, and still come all and in order the first time", () =>
  withConnection(2, async (world) => {
    const numbers = await arrivalsOf(world);
    assert.ok(numbers.length > 60, `${numbers.length}`);
    const first = [...new Set(numbers)];
    assert.deepEqual(first, Array.from({ length: 50 }, (_, i) => i));
    assert.notDeepEqual(numbers, numbers.toSorted((a, b) => a - b), "repetitions come later");
  }, { repeatChance: 0.5 }));

Deno.test("sim bus: messages may overtake each other, and still come all and once", () =>
  withConnection(3, async (world) => {
    const numbers = await arrivalsOf(world);
    const inOrder = numbers.toSorted((a, b) => a - b);
    assert.deepEqual(inOrder, Array.from({ length: 50 }, (_, i) => i));
    assert.notDeepEqual(numbers, inOrder);
  }, { overtakeChance: 0.3 }));

Deno.test("sim bus: what a killed process sent arrives up to some message, then the end", async () => {
  const counts = new Set<number>();
  for (let seed = 0; seed < 20; seed++) {
    await withConnection(seed, async (world) => {
      const { clock, network, near } = world;
      for (let i = 0; i < 5; i++) {
        near.notify("say", { data: i });
        await sleep(clock, 1);
      }
      network.kill("a");
      await sleep(clock, 500);
      const count = seen(world).length - 1;
      counts.add(count);
      const expected = Array.from({ length: count }, (_, i) => `b got ${i}`);
      assert.deepEqual(seen(world), [...expected, "b lost it"]);
      assert.equal(network.numConnections, 0);
    });
  }
  assert.ok(counts.size > 2, "from none to all of what was sent");
});

Deno.test("sim bus: a short partition delays, a long one breaks both ends", () =>
  withConnection(1, async (world) => {
    const { clock, network, near, far } = world;
    network.block("a", "b");
    near.notify("say", { data: "late" });
    far.notify("say", { data: "on the way back" });
    await sleep(clock, 500);
    assert.deepEqual(seen(world), ["a got on the way back"]);
    network.heal("a", "b");
    await sleep(clock, 1);
    assert.deepEqual(seen(world).slice(1), ["b got late"]);
    network.block("b", "a");
    const call = rejection(near.call("anything", { data: null }));
    await sleep(clock, 2000);
    assert.deepEqual(seen(world).slice(2).sort(), ["a lost it", "b lost it"]);
    assert.equal((await call).kind, "unavailable");
    assert.equal(network.numConnections, 0);
  }));

Deno.test("sim bus: a process that hangs gets its messages and its timers later", () =>
  withConnection(1, async (world) => {
    const { clock, network, near } = world;
    network.pause("b");
    near.notify("say", { data: "hello" });
    await sleep(clock, 5000);
    assert.deepEqual(seen(world), []);
    assert.ok(near.isOpen);
    network.resume("b");
    await sleep(clock, 1);
    assert.deepEqual(seen(world), ["b got hello"]);
  }));

Deno.test("sim bus: a broken connection loses what is under way, in both directions", () =>
  withConnection(1, async (world) => {
    const { clock, network, near, far } = world;
    near.notify("say", { data: "lost" });
    far.notify("say", { data: "lost too" });
    await sleep(clock, 1);
    network.breakConnections("a", "b");
    await sleep(clock, 500);
    assert.deepEqual(seen(world).sort(), ["a lost it", "b lost it"]);
  }));
