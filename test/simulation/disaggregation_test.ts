/** Prefill-decode disaggregation of whole clusters of production code, on a virtual clock. */
import assert from "node:assert/strict";
import type { InstanceType, RequestId } from "../../src/core/messages.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";
import { MAX_HOLD_MS } from "../../src/instance/scheduler.ts";
import { expectedOutput } from "../../src/sim/paged_model.ts";
import { randomScenario, type Scenario } from "../../src/sim/scenario.ts";
import { SimCluster } from "../../src/sim/sim_cluster.ts";
import type { SimInstance } from "../../src/sim/sim_instance.ts";

/** Virtual time within which whatever a test waits for has to happen. */
const BOUND_MS = 60_000;
const OUTPUT_TOKENS = 20;

function scenarioOf(numPrefill: number, numInstances: number): Scenario {
  const scenario = randomScenario(1);
  return {
    ...scenario,
    numClients: 1,
    maxClockSkewMs: 0,
    manager: {
      ...scenario.manager,
      initialInstances: numInstances,
      numDispatchInstances: numPrefill,
      loadMetric: "remaining_steps",
      dispatchPolicy: "load",
    },
    migration: {
      enableMigration: true,
      enablePdDisagg: true,
      pairMigrationFrequency: 1,
      pairMigrationPolicy: "balanced",
      migrateOutThreshold: 3,
      requestMigrationPolicy: "SR",
      enableDefrag: false,
    },
    scaling: { ...scenario.scaling, enableScaling: false },
    engine: {
      maxNumSeqs: 16,
      schedulerDelayFactor: 0,
      preemptionMode: "recompute",
      blockSize: 4,
      numBlocks: 200,
      numSwapBlocks: 0,
      maxModelLen: 100,
      stepMs: 10,
    },
    network: { meanDelayMs: 0.2, keepAliveMs: 300 },
  };
}

interface Tracked {
  readonly tokenIds: number[];
  readonly expected: readonly number[];
  error: string | null;
  hasEnded: boolean;
  endedMs: number;
}

/** A cluster and the requests that a test gives it. */
class World {
  readonly cluster: SimCluster;
  readonly requests = new Map<RequestId, Tracked>();

  constructor(scenario: Scenario) {
    this.cluster = new SimCluster(scenario, false, (what) => assert.fail(what));
  }

  static async start(numPrefill: number, numInstances: number): Promise<World> {
    const world = new World(scenarioOf(numPrefill, numInstances));
    await world.run(world.cluster.start());
    return world;
  }

  async run<T>(promise: Promise<T>): Promise<T> {
    let isDone = false;
    const noted = promise.finally(() => isDone = true);
    noted.catch(() => {});
    await this.until(() => isDone);
    return await noted;
  }

  async until(condition: () => boolean): Promise<void> {
    let isLate = false;
    const cancel = this.cluster.clock.after(BOUND_MS, () => isLate = true);
    await this.cluster.clock.runUntil(() => isLate || condition());
    cancel();
    assert.ok(condition(), `not in ${BOUND_MS} ms: ${condition}`);
  }

  submit(names: readonly RequestId[]): void {
    const { client } = this.cluster.clients[0];
    for (const [i, requestId] of names.entries()) {
      const promptTokenIds = Array.from({ length: 5 + i }, (_, j) => (7 * i + j) % 128);
      const expected = expectedOutput(promptTokenIds, i, OUTPUT_TOKENS);
      const tracked: Tracked = {
        tokenIds: [],
        expected,
        error: null,
        hasEnded: false,
        endedMs: NaN,
      };
      this.requests.set(requestId, tracked);
      client.submit({
        requestId,
        frontendId: client.frontendId,
        promptTokenIds,
        outputTokenIds: [],
        params: {
          ...samplingDefaults,
          temperature: 0,
          maxTokens: OUTPUT_TOKENS,
          seed: i,
          stopTokenIds: [],
          eosTokenIds: [],
        },
        arrivalMs: this.cluster.clock.nowMs(),
      }, ({ tokenIds, finish }) => {
        tracked.tokenIds.push(...tokenIds);
        if (!finish) return;
        tracked.error = finish.error?.message ?? null;
        tracked.hasEnded = true;
        tracked.endedMs = this.cluster.elapsedMs;
      }).catch((error) => tracked.error = String(error));
    }
  }

  async finishAll(): Promise<void> {
    await this.until(() => [...this.requests.values()].every(({ hasEnded }) => hasEnded));
    for (const [id, { tokenIds, expected, error }] of this.requests) {
      assert.equal(error, null, id);
      assert.deepEqual(tokenIds, expected, id);
    }
    await this.until(() =>
      this.alive().every(({ instance }) => instance.engine!.info().usedBlocks === 0)
    );
    for (const { instance } of this.alive()) instance.engine!.check();
  }

  alive(type?: InstanceType): SimInstance[] {
    return this.cluster.aliveInstances.filter((sim) =>
      sim.instance.engine && (type === undefined || typeOf(sim) === type)
    );
  }

  /** Tokens that the living instances of a type have produced. */
  tokensOf(type: InstanceType): number {
    return this.alive(type).reduce((sum, sim) => sum + outputTokens(sim), 0);
  }

  killAll(type: InstanceType): void {
    for (const sim of this.alive(type)) this.cluster.killInstance(sim);
  }

  /** Requests that have their first token and wait on a prefill instance. */
  numHeld(): number {
    return this.alive("prefill").reduce(
      (sum, { instance }) => sum + instance.engine!.info().leavingRequests,
      0,
    );
  }
}

const typeOf = ({ instance }: SimInstance) => instance.engine!.info().instanceType;
const outputTokens = ({ instance }: SimInstance) => instance.engine!.info().totals.outputTokens;
const names = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${prefix}${i}`);

Deno.test("every request has its first token from a prefill instance, the rest from decode", async () => {
  const world = await World.start(1, 3);
  assert.deepEqual(world.alive().map(typeOf), ["prefill", "decode", "decode"]);
  world.submit(names("r", 10));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 10);
  const decoded = world.alive("decode").map(outputTokens);
  assert.equal(decoded[0] + decoded[1], 10 * (OUTPUT_TOKENS - 1));
  assert.ok(Math.min(...decoded) > 0, `both have decoded: ${decoded}`);
  for (const { outcome, stages } of world.cluster.reports) {
    if (outcome === "committed") assert.equal(stages, 1, "blocking");
  }
});

Deno.test("when the last decode instance dies, requests that wait to leave go on at once", async () => {
  const world = await World.start(1, 2);
  world.cluster.network.block("instance-0", "instance-1"); // they cannot leave
  world.submit(names("r", 4));
  await world.until(() => world.numHeld() === 4);
  const diedMs = world.cluster.elapsedMs;
  world.killAll("decode");
  await world.finishAll();
  const lastMs = Math.max(...[...world.requests.values()].map(({ endedMs }) => endedMs));
  assert.ok(lastMs - diedMs < MAX_HOLD_MS, `${lastMs - diedMs} ms`);
  assert.equal(world.tokensOf("prefill"), 4 * OUTPUT_TOKENS);
});

Deno.test("without decode instances requests decode where they are, until one is back", async () => {
  const world = await World.start(1, 2);
  world.killAll("decode");
  await world.until(() => world.cluster.manager!.instances().length === 1);
  world.submit(names("alone", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 4 * OUTPUT_TOKENS);
  await world.run(world.cluster.manager!.addInstance());
  assert.deepEqual(world.alive().map(typeOf), ["prefill", "decode"]);
  world.submit(names("again", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 4 * OUTPUT_TOKENS + 4);
  assert.equal(world.tokensOf("decode"), 4 * (OUTPUT_TOKENS - 1));
});

Deno.test("without prefill instances decode ones take prompts, until one is back", async () => {
  const world = await World.start(1, 3);
  world.killAll("prefill");
  await world.until(() => world.cluster.manager!.instances().length === 2);
  world.submit(names("alone", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("decode"), 4 * OUTPUT_TOKENS);
  await world.run(world.cluster.manager!.addInstance());
  assert.deepEqual(world.alive().map(typeOf), ["decode", "decode", "prefill"]);
  world.submit(names("again", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 4);
});

Deno.test("without a manager nobody orders migrations: requests go on after a while", async () => {
  const world = await World.start(1, 2);
  world.cluster.network.block("instance-0", "instance-1");
  world.submit(names("r", 4));
  await world.until(() => world.numHeld() === 4);
  world.cluster.killManager();
  await world.finishAll();
  world.submit(names("later", 2));
  await world.finishAll();
});

Deno.test("a request that no decode instance has room for decodes where it is", async () => {
  const world = await World.start(1, 2);
  const [decode] = world.alive("decode");
  const { engine } = decode.instance;
  const arrival = engine!.arrive({
    requestId: "occupant",
    arrivalMs: 0,
    lengthTokens: 1,
    isWaiting: false,
  });
  const taken = Promise.withResolvers<readonly number[] | null>();
  arrival.reserve(198, taken.resolve);
  assert.notEqual(await world.run(taken.promise), null);
  world.submit(["r"]);
  await world.until(() => world.requests.get("r")!.hasEnded);
  assert.ok(world.cluster.reports.some(({ outcome }) => outcome === "aborted_destination"));
  arrival.cancel();
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), OUTPUT_TOKENS);
});

Deno.test("a prefill instance that is removed gives away what it has; its place stays prefill", async () => {
  const world = await World.start(1, 3);
  world.submit(names("r", 8));
  await world.until(() => world.alive("prefill")[0].instance.engine!.info().runningRequests > 0);
  assert.equal(await world.run(world.cluster.manager!.removeInstance("instance-0")), true);
  await world.finishAll();
  await world.run(world.cluster.manager!.addInstance());
  assert.deepEqual(world.alive().map(typeOf), ["decode", "decode", "prefill"]);
});
