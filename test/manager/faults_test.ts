/** Whatever fails, whenever: seeded random faults against the promises of manager and client. */
import assert from "node:assert/strict";
import type { InstanceId } from "../../src/core/protocol/generate.ts";
import { FakeCluster, migration } from "./fake_cluster.ts";
import { managerOptions } from "./support.ts";
import { isLongRun } from "../long.ts";

const NUM_SEEDS = Number(Deno.env.get("FAULT_SEEDS") ?? (isLongRun ? 40 : 12));
const FIRST_SEED = Number(Deno.env.get("FAULT_FIRST_SEED") ?? 0);
const FAULTS_MS = 20_000;

/** Does something at random, and undoes it after a while where it would last. */
class Saboteur {
  #numRequests = 0;
  #isManagerAlive = true;
  readonly #undo: (() => void)[] = [];
  /** Of the manager that is alive; one that dies meanwhile never ends it. */
  #recovering: Promise<void> = Promise.resolve();

  constructor(private readonly cluster: FakeCluster) {}

  async act(): Promise<void> {
    const { cluster } = this;
    const { random, network } = cluster;
    const ids = [...cluster.instances.keys()];
    const id = ids[random.below(ids.length)] as InstanceId | undefined;
    const nodes = [...ids, "frontend", ...(this.#isManagerAlive ? ["manager"] : [])];
    const [a, b] = [nodes[random.below(nodes.length)], nodes[random.below(nodes.length)]];
    const choice = random.below(100);
    if (choice < 60) {
      cluster.submit(`r${this.#numRequests++}`, 1 + random.below(100));
    } else if (choice < 75) {
      const running = [...cluster.requests.values()].filter(({ hasEnded }) => !hasEnded);
      if (running.length > 0) cluster.abort(running[random.below(running.length)]);
    } else if (choice < 78) {
      if (id !== undefined) cluster.kill(id);
    } else if (choice < 82) {
      if (this.#isManagerAlive) cluster.manager.addInstance().catch(() => {});
    } else if (choice < 85) {
      if (this.#isManagerAlive && id !== undefined) {
        cluster.manager.removeInstance(id).catch(() => {});
      }
    } else if (choice < 90) {
      if (a !== b) network.breakConnections(a, b);
    } else if (choice < 94) {
      if (a === b) return;
      network.block(a, b);
      this.#later(() => network.heal(a, b));
    } else if (choice < 97) {
      if (id === undefined) return;
      network.pause(id);
      this.#later(() => network.resume(id));
    } else if (this.#isManagerAlive) {
      cluster.killManager();
      this.#isManagerAlive = false;
      this.#later(() => {
        this.#isManagerAlive = true;
        this.#recovering = cluster.restartManagerSoon().catch(() => {});
      });
    }
    await cluster.pass(random.exponential() * 100);
  }

  /** Puts everything right that can be. */
  async stop(): Promise<void> {
    for (const undo of [...this.#undo]) undo();
    const { cluster } = this;
    await cluster.run(this.#recovering);
    if (cluster.manager.instances().length === 0) await cluster.run(cluster.manager.addInstance());
  }

  #later(undo: () => void): void {
    const once = () => {
      const at = this.#undo.indexOf(once);
      if (at < 0) return;
      this.#undo.splice(at, 1);
      undo();
    };
    this.#undo.push(once);
    this.cluster.clock.after(this.cluster.random.exponential() * 3_000, once);
  }
}

async function runSeed(seed: number): Promise<string> {
  const draining = new Set<InstanceId>();
  const cluster = new FakeCluster(seed, {
    options: { ...managerOptions, initialInstances: 3, dispatchPolicy: "load" },
    migration,
    onEvent: (event) => {
      cluster.events.push(event);
      if (event.type === "draining") draining.add(event.instanceId);
      if (event.type === "lost" || event.type === "stopped") draining.delete(event.instanceId);
      if (event.type === "dispatched") {
        assert.ok(!draining.has(event.instanceId), `seed ${seed}: dispatched to a draining one`);
      }
    },
    onManagerStart: () => draining.clear(),
  });
  await cluster.start();
  const saboteur = new Saboteur(cluster);
  const endMs = cluster.clock.nowMs() + FAULTS_MS;
  while (cluster.clock.nowMs() < endMs) await saboteur.act();
  await saboteur.stop();

  const requests = [...cluster.requests.values()];
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded), 120_000);
  const nobodyHasAny = () =>
    requests.every(({ requestId }) => cluster.holders(requestId).length === 0);
  await cluster.until(nobodyHasAny, 60_000);
  for (const { requestId, finish, numResumptions } of requests) {
    assert.ok(numResumptions <= 20, requestId);
    if (finish?.reason !== "error") continue;
    assert.match(finish.error!.message, /resumed 20 times already|in a row were lost/);
  }
  await cluster.run(cluster.manager.addInstance()); // the others may all be on their way out
  const last = cluster.submit("last");
  await cluster.until(() => last.finish?.reason === "length");
  return JSON.stringify([
    cluster.clock.nowMs(),
    requests.map(({ outputs, numResumptions }) => [outputs.length, numResumptions]),
    cluster.manager.statistics(),
  ]);
}

Deno.test(`faults: every request ends once, with all tokens or a reason (${NUM_SEEDS} seeds)`, async () => {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + NUM_SEEDS; seed++) {
    try {
      await runSeed(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
});

Deno.test("faults: the same seed does the same", async () => {
  assert.equal(await runSeed(7), await runSeed(7));
});

Deno.test("faults: without any, an instance is in one migration at a time", async () => {
  for (let seed = 0; seed < 5; seed++) {
    const cluster = new FakeCluster(seed, {
      options: { ...managerOptions, initialInstances: 5 },
      migration,
    });
    await cluster.start();
    for (let i = 0; i < 40; i++) cluster.submit(`r${i}`, 1 + cluster.random.below(200));
    const requests = [...cluster.requests.values()];
    await cluster.until(() => requests.every(({ hasEnded }) => hasEnded));
    assert.ok(requests.every(({ finish }) => finish?.reason === "length"));
    assert.ok(cluster.manager.statistics().migrations.committed > 10);
    for (const { numOverlappingOrders } of cluster.instances.values()) {
      assert.equal(numOverlappingOrders, 0);
    }
  }
});
