/** A small cluster of production code on a virtual clock, for tests that say what happens when. */
import assert from "node:assert/strict";
import type { RequestId } from "../../src/core/protocol/generate.ts";
import type { InstanceType } from "../../src/core/protocol/instance_info.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";
import { expectedOutput } from "../../src/sim/fuzz/paged_model.ts";
import { randomScenario } from "../../src/sim/fuzz/random_scenario.ts";
import type { Scenario } from "../../src/sim/fuzz/scenario.ts";
import { SimCluster } from "../../src/sim/fuzz/sim_cluster.ts";
import type { SimInstance } from "../../src/sim/fuzz/sim_instance.ts";

/** Virtual time within which whatever a test waits for has to happen. */
const BOUND_MS = 60_000;
export const OUTPUT_TOKENS = 20;

/** @param numPrefill null without disaggregation */
function scenarioOf(numPrefill: number | null, numInstances: number): Scenario {
  const scenario = randomScenario(1);
  return {
    ...scenario,
    numClients: 1,
    maxClockSkewMs: 0,
    group: null,
    manager: {
      ...scenario.manager,
      initialInstances: numInstances,
      numDispatchInstances: numPrefill,
      loadMetric: "remaining_steps",
      dispatchPolicy: "load",
    },
    migration: {
      enableMigration: numPrefill !== null,
      enablePdDisagg: numPrefill !== null,
      pairMigrationFrequency: 1,
      pairMigrationPolicy: "balanced",
      migrateOutThreshold: 3,
      requestMigrationPolicy: "SR",
      enableDefrag: false,
    },
    transfer: { ...scenario.transfer, lastStageMaxBlocks: 2, maxStages: 5 },
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
    network: { meanDelayMs: 0.2, keepAliveMs: 300, repeatChance: 0, overtakeChance: 0 },
  };
}

/** A request and what has come of it. */
export interface Tracked {
  readonly tokenIds: number[];
  readonly expected: readonly number[];
  error: string | null;
  hasEnded: boolean;
  endedMs: number;
}

/** A cluster and the requests that a test gives it. */
export class World {
  readonly cluster: SimCluster;
  readonly requests = new Map<RequestId, Tracked>();

  constructor(scenario: Scenario) {
    this.cluster = new SimCluster(scenario, false, (what) => assert.fail(what));
  }

  static async start(numPrefill: number | null, numInstances: number): Promise<World> {
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

  submit(names: readonly RequestId[], outputTokens = OUTPUT_TOKENS): void {
    const { client } = this.cluster.clients[0];
    for (const [i, requestId] of names.entries()) {
      const promptTokenIds = Array.from({ length: 5 + i }, (_, j) => (7 * i + j) % 128);
      const expected = expectedOutput(promptTokenIds, i, outputTokens);
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
          maxTokens: outputTokens,
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

export const typeOf = ({ instance }: SimInstance) => instance.engine!.info().instanceType;
export const outputTokens = ({ instance }: SimInstance) =>
  instance.engine!.info().totals.outputTokens;
