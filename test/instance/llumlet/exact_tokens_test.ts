/**
 * A request that moves yields the very tokens and log probabilities of one that never did: the real
 * model on the CPU, two instances in this process.
 */
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { InProcessBus } from "../../../src/bus/in_process_bus.ts";
import { realClock } from "../../../src/core/clock.ts";
import type {
  GenerateRequest,
  RequestOutput,
  SamplingParams,
} from "../../../src/core/protocol/generate.ts";
import type { MigrationReport } from "../../../src/core/protocol/migration.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { Engine } from "../../../src/instance/engine/engine.ts";
import { Llumlet } from "../../../src/instance/llumlet/llumlet.ts";
import { InstanceService } from "../../../src/instance/instance_service.ts";
import { InProcessBackend } from "../../../src/kv/transfer/in_process/in_process_backend.ts";
import { PoolDirectory } from "../../../src/kv/transfer/in_process/pool_directory.ts";
import { kernelSets, load } from "../../executor/cpu/harness.ts";
import { engineConfig, generateRequest } from "../support.ts";

const NUM_TOKENS = 64;
/** A step of the tiny model is shorter than a message: it begins so many turns later. */
const STEP_TURNS = 8;

interface Scenario {
  readonly dtype: EngineOptions["dtype"];
  readonly numBlocks: number;
  readonly preemptionMode: "recompute" | "swap";
}

/** What a client has of a request. */
interface Answer {
  readonly tokenIds: number[];
  readonly logprobs: unknown[];
  promptLogprobs: unknown;
  hasEnded: boolean;
  /** Of each token. */
  readonly epochs: number[];
}

class CpuInstance {
  preempted = 0;
  constructor(
    readonly name: string,
    readonly engine: Engine,
    readonly llumlet: Llumlet,
    readonly close: () => Promise<void>,
  ) {}
}

class Cluster {
  readonly bus = new InProcessBus();
  readonly directory = new PoolDirectory();
  readonly answers = new Map<string, Answer>();
  readonly instances: CpuInstance[] = [];
  #numOrders = 0;

  async add(name: string, { dtype, numBlocks, preemptionMode }: Scenario): Promise<CpuInstance> {
    const options = { dtype, numGpuBlocksOverride: numBlocks, blockSize: 8, maxModelLen: 160 };
    const executor = delayed(await load({ ...options, maxNumSeqs: 8 }));
    const { info, pool } = executor;
    assert.ok(pool?.memory === "host");
    const service = new InstanceService();
    const config = { instanceId: name, preemptionMode, maxModelLen: 160 };
    const engine: Engine = new Engine({
      config: engineConfig(config),
      executor,
      clock: realClock,
      onOutputs: (addressed) =>
        addressed.forEach(({ outputs }) => outputs.forEach((output) => this.#accept(output))),
      onInfo: ({ killedRequests }) => instance.preempted += killedRequests,
      onFatal: (error) => assert.fail(String(error)),
    });
    const llumlet = new Llumlet({
      instanceId: name,
      model: info.model,
      layout: info.layout,
      engine,
      backend: new InProcessBackend({
        instanceId: name,
        pool,
        directory: this.directory,
        limits: { bufferBlocks: 1, numLayers: 1 },
        clock: realClock,
      }),
      bus: this.bus,
      clock: realClock,
      limits: { lastStageMaxBlocks: 1, maxStages: 20 },
      onMovedIn: () => {},
      onMovedOut: () => {},
    });
    service.attach(engine, llumlet);
    const listener = await this.bus.listen(`inproc:${name}`, service.service);
    const instance = new CpuInstance(name, engine, llumlet, async () => {
      await llumlet.close();
      await engine.close();
      await listener.close();
    });
    this.instances.push(instance);
    return instance;
  }

  async use<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } finally {
      for (const instance of this.instances) await instance.close();
    }
  }

  start(instance: CpuInstance, request: GenerateRequest): Answer {
    const answer = {
      tokenIds: [],
      logprobs: [],
      promptLogprobs: null,
      hasEnded: false,
      epochs: [],
    };
    this.answers.set(request.requestId, answer);
    instance.engine.add(request);
    return answer;
  }

  migrate(from: CpuInstance, to: CpuInstance, requestId: string): Promise<MigrationReport> {
    return from.llumlet.migrateOut({
      migrationId: `m${++this.#numOrders}`,
      destination: { instanceId: to.name, address: `inproc:${to.name}` },
      policy: "LCR",
      requestId,
    });
  }

  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) await setImmediate();
  }

  #accept({ requestId, index, tokenIds, logprobs, promptLogprobs, finish, epoch }: RequestOutput) {
    const answer = this.answers.get(requestId)!;
    assert.ok(!answer.hasEnded, "output after the end");
    assert.equal(index, answer.tokenIds.length, "tokens come once and in order");
    answer.tokenIds.push(...tokenIds);
    answer.logprobs.push(...logprobs ?? []);
    answer.promptLogprobs ??= promptLogprobs ?? null;
    answer.hasEnded = finish !== undefined;
    answer.epochs.push(...tokenIds.map(() => epoch ?? 0));
  }
}

function delayed(executor: Executor): Executor {
  return {
    info: executor.info,
    pool: executor.pool,
    async step(input) {
      for (let turn = 0; turn < STEP_TURNS; turn++) await setImmediate();
      return await executor.step(input);
    },
    close: () => executor.close(),
  };
}

/**
 * Greedy and sampled ones, with penalties and bad words, which need the history at the destination, and with
 * other restrictions.
 */
function requests(): GenerateRequest[] {
  const restricted: Partial<SamplingParams> = {
    allowedTokenIds: Array.from({ length: 60 }, (_, id) => id),
    badWords: Array.from({ length: 60 }, (_, id) => [id, (id * 7) % 60]),
    logitBias: [[3, 0.5], [4, -100]],
  };
  const sampled: Partial<SamplingParams> = { temperature: 1, topP: 0.95, frequencyPenalty: 0.2 };
  return [0, 1, 2, 3].map((i) =>
    generateRequest(`r${i}`, 13 + 9 * i, {
      maxTokens: NUM_TOKENS,
      seed: 100 + i,
      ignoreEos: true,
      logprobs: 3,
      promptLogprobs: i === 2 ? 1 : null,
      ...(i % 2 === 1 && sampled),
      ...(i >= 2 && restricted),
    }, { arrivalMs: i })
  );
}

const roomy = { numBlocks: 128, preemptionMode: "recompute" } as const;

/** Each request alone on an instance with room for everything. */
async function undisturbed(dtype: Scenario["dtype"]): Promise<Map<string, Answer>> {
  const cluster = new Cluster();
  return await cluster.use(async () => {
    const instance = await cluster.add("alone", { ...roomy, dtype });
    for (const request of requests()) {
      const answer = cluster.start(instance, request);
      await cluster.until(() => answer.hasEnded);
    }
    return cluster.answers;
  });
}

/** Runs all requests on two instances while `move` moves them. */
async function moved(
  scenario: Scenario,
  move: (cluster: Cluster, a: CpuInstance, b: CpuInstance) => Promise<void>,
): Promise<Cluster> {
  const cluster = new Cluster();
  return await cluster.use(async () => {
    const a = await cluster.add("a", scenario), b = await cluster.add("b", scenario);
    for (const request of requests()) cluster.start(a, request);
    await move(cluster, a, b);
    await cluster.until(() => [...cluster.answers.values()].every(({ hasEnded }) => hasEnded));
    await cluster.until(() => !a.llumlet.isMigrating && !b.llumlet.isMigrating);
    for (const { engine, name } of [a, b]) {
      await engine.idle();
      engine.check();
      assert.equal(engine.info().usedBlocks, 0, `blocks of ${name}`);
    }
    return cluster;
  });
}

function assertSame(answers: Map<string, Answer>, expected: Map<string, Answer>): void {
  for (const [requestId, { tokenIds, logprobs, promptLogprobs }] of expected) {
    const answer = answers.get(requestId)!;
    assert.equal(answer.tokenIds.length, NUM_TOKENS);
    assert.deepEqual(answer.tokenIds, tokenIds, `tokens of ${requestId}`);
    assert.deepEqual(answer.logprobs, logprobs, `log probabilities of ${requestId}`);
    assert.deepEqual(answer.promptLogprobs, promptLogprobs);
  }
}

function assertCommitted(report: MigrationReport): void {
  assert.equal(report.outcome, "committed", report.reason);
}

// WASM memory has no address.
const isAddressable = kernelSets.some((set) => set !== "wasm");

for (const dtype of ["float32", "bfloat16"] as const) {
  const test = (title: string, body: (expected: Map<string, Answer>) => Promise<void>) =>
    Deno.test({
      name: `exact tokens, ${dtype}: ${title}`,
      ignore: !isAddressable,
      fn: async () => body(await undisturbed(dtype)),
    });

  test("once, in the first decode step, and in the last", async (expected) => {
    for (const [requestId, numTokens] of [["r0", 20], ["r1", 20], ["r2", 1], ["r3", 1]] as const) {
      const { answers } = await moved({ ...roomy, dtype }, async (cluster, a, b) => {
        await cluster.until(() => cluster.answers.get(requestId)!.tokenIds.length === numTokens);
        assertCommitted(await cluster.migrate(a, b, requestId));
      });
      assertSame(answers, expected);
      assert.equal(answers.get(requestId)!.epochs.at(-1), 1);
    }
    for (const requestId of ["r0", "r1"]) {
      const numTokensThere = [];
      for (let numTokens = NUM_TOKENS - 8; numTokens < NUM_TOKENS; numTokens++) {
        const { answers } = await moved({ ...roomy, dtype }, async (cluster, a, b) => {
          await cluster.until(() => cluster.answers.get(requestId)!.tokenIds.length === numTokens);
          await cluster.migrate(a, b, requestId);
        });
        assertSame(answers, expected);
        numTokensThere.push(answers.get(requestId)!.epochs.filter((epoch) => epoch > 0).length);
      }
      assert.ok(numTokensThere.includes(1), `nothing but its last: ${numTokensThere}`);
    }
  });

  test("ten times, back and forth", async (expected) => {
    const { answers } = await moved({ ...roomy, dtype }, async (cluster, a, b) => {
      await cluster.until(() => cluster.answers.get("r3")!.tokenIds.length > 0);
      for (let i = 0; i < 10; i++) {
        for (const requestId of ["r1", "r2"]) {
          const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
          assertCommitted(await cluster.migrate(from, to, requestId));
        }
      }
    });
    assertSame(answers, expected);
    assert.equal(answers.get("r1")!.epochs.at(-1), 10);
  });

  for (const preemptionMode of ["recompute", "swap"] as const) {
    test(`among preemptions, ${preemptionMode}`, async (expected) => {
      const scenario = { dtype, numBlocks: 22, preemptionMode };
      const outcomes: string[] = [];
      const { answers, instances } = await moved(scenario, async (cluster, a, b) => {
        const isOver = () => [...cluster.answers.values()].every(({ hasEnded }) => hasEnded);
        for (let i = 0; !isOver(); i++) {
          const [from, to] = i % 3 === 0 ? [b, a] : [a, b];
          outcomes.push((await cluster.migrate(from, to, `r${i % 4}`)).outcome);
          await setImmediate();
        }
      });
      assertSame(answers, expected);
      assert.ok(outcomes.filter((outcome) => outcome === "committed").length >= 4);
      assert.ok(instances.some(({ preempted }) => preempted > 0), "nothing was preempted");
    });
  }
}
