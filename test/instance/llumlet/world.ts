/** Instances with llumlets on a simulated network and clock, and an API server that they serve. */
import assert from "node:assert/strict";
import type { Peer } from "../../../src/bus/bus.ts";
import type { GenerateRequest, RequestOutput } from "../../../src/core/protocol/generate.ts";
import type {
  MigrateInRequest,
  MigrateOutOrder,
  MigrationReport,
} from "../../../src/core/protocol/migration.ts";
import { Random } from "../../../src/core/random.ts";
import type { StepInput } from "../../../src/executor/executor.ts";
import { Engine } from "../../../src/instance/engine/engine.ts";
import type { EngineConfig } from "../../../src/instance/engine/engine_config.ts";
import type { CrossoverSetting, PathMeasure } from "../../../src/instance/llumlet/crossover.ts";
import { Llumlet } from "../../../src/instance/llumlet/llumlet.ts";
import type { MigrationTimeouts } from "../../../src/instance/llumlet/timeouts.ts";
import { InstanceService } from "../../../src/instance/instance_service.ts";
import { blockBytes } from "../../../src/kv/layout.ts";
import type { MigrationBackend } from "../../../src/kv/transfer/backend.ts";
import { InProcessBackend } from "../../../src/kv/transfer/in_process/in_process_backend.ts";
import { PoolDirectory } from "../../../src/kv/transfer/in_process/pool_directory.ts";
import { expectedOutput, type PagedModelShape } from "../../../src/sim/fuzz/paged_model.ts";
import { SimNetwork, type SimNode } from "../../../src/sim/network/sim_bus.ts";
import { TimedModel } from "../../../src/sim/fuzz/timed_model.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { engineConfig } from "../support.ts";

export interface InstanceShape extends Partial<PagedModelShape> {
  readonly config?: Partial<EngineConfig>;
  readonly stepMs?: (input: StepInput) => number;
  readonly model?: string;
  readonly limits?: { readonly lastStageMaxBlocks: number; readonly maxStages: number };
  readonly timeouts?: Partial<MigrationTimeouts>;
  readonly copiesBesideSteps?: boolean;
  readonly crossover?: CrossoverSetting;
  readonly onPathMeasured?: (measure: PathMeasure) => void;
  /** Time that a block takes to be copied. */
  readonly blockMs?: number;
  readonly wrapBackend?: (backend: MigrationBackend) => MigrationBackend;
}

export class TestInstance {
  readonly model: TimedModel;
  readonly engine: Engine;
  readonly llumlet: Llumlet;
  readonly service: InstanceService;
  readonly fatal: unknown[] = [];

  constructor(readonly name: string, readonly node: SimNode, world: World, shape: InstanceShape) {
    const { blockSize = 4, numBlocks = 64, numSwapBlocks = 0, stepMs = () => 10 } = shape;
    const { clock, bus } = node;
    this.model = new TimedModel({ blockSize, numBlocks, numSwapBlocks }, clock, stepMs);
    this.service = new InstanceService(clock);
    this.engine = new Engine({
      config: engineConfig({ instanceId: name, ...shape.config }),
      executor: this.model,
      clock,
      onOutputs: (outputs) => this.service.sendOutputs(outputs),
      onFatal: (error) => this.fatal.push(error),
    });
    const { layout } = this.model.info;
    const backend = new InProcessBackend({
      instanceId: name,
      pool: this.model.pool,
      directory: world.directory,
      limits: { bufferBlocks: 2, numLayers: 1 },
      clock,
      bytesPerMs: blockBytes(layout) / (shape.blockMs ?? 1),
    });
    this.llumlet = new Llumlet({
      instanceId: name,
      model: shape.model ?? "paged",
      layout,
      engine: this.engine,
      backend: shape.wrapBackend?.(backend) ?? backend,
      bus,
      clock,
      limits: shape.limits ?? { lastStageMaxBlocks: 2, maxStages: 10 },
      copiesBesideSteps: shape.copiesBesideSteps,
      crossover: shape.crossover,
      onPathMeasured: shape.onPathMeasured,
      timeouts: shape.timeouts,
      onMovedIn: (request) => this.service.expect(request),
      onMovedOut: (requestId) => this.service.forget(requestId),
    });
    this.service.attach(this.engine, this.llumlet);
  }

  get address(): string {
    return `inproc:${this.name}`;
  }

  get isEmpty(): boolean {
    const { freeBlocks, totalBlocks } = this.engine.info();
    return freeBlocks === totalBlocks;
  }
}

/** One request as its API server sees it. */
export class Followed {
  readonly outputs: RequestOutput[] = [];
  /** Token by index; what two instances both produce has to be equal. */
  readonly tokens: number[] = [];

  constructor(readonly request: GenerateRequest) {}

  get finishes(): RequestOutput[] {
    return this.outputs.filter(({ finish }) => finish);
  }

  /** The epochs in which outputs came, each once. */
  get epochs(): number[] {
    return [...new Set(this.outputs.map(({ epoch = 0 }) => epoch))];
  }

  accept(output: RequestOutput): void {
    this.outputs.push(output);
    output.tokenIds.forEach((token, i) => {
      const known = this.tokens[output.index + i];
      assert.ok(known === undefined || known === token, "instances disagree about a token");
      this.tokens[output.index + i] = token;
    });
  }

  /** All its tokens are those of a request that never moved. */
  checkTokens(): void {
    const { promptTokenIds, params } = this.request;
    const expected = expectedOutput(promptTokenIds, params.seed, this.tokens.length);
    assert.deepEqual([...this.tokens], expected, this.request.requestId);
  }
}

export class World {
  readonly clock = new VirtualClock(1_000_000);
  readonly directory = new PoolDirectory();
  readonly network: SimNetwork;
  readonly instances = new Map<string, TestInstance>();
  readonly requests = new Map<string, Followed>();
  readonly client: SimNode;
  /** The API server has an output. */
  onOutput: ((from: TestInstance, followed: Followed) => void) | null = null;
  readonly #peers = new Map<string, Peer>();
  #numOrders = 0;

  constructor(seed = 1, readonly onFrame?: (from: string, to: string, text: string) => void) {
    this.network = new SimNetwork({
      clock: this.clock,
      random: new Random(seed),
      meanDelayMs: 0.5,
      keepAliveMs: 3_000,
      onFrame: (from, to, text) => this.onFrame?.(from, to, text),
    });
    this.client = this.network.addNode("client");
  }

  async add(name: string, shape: InstanceShape = {}): Promise<TestInstance> {
    const instance = new TestInstance(name, this.network.addNode(name), this, shape);
    this.instances.set(name, instance);
    await instance.node.bus.listen(instance.address, instance.service.service);
    return instance;
  }

  /** The API server connects to an instance. */
  async connect(instance: TestInstance): Promise<Peer> {
    const { name, address } = instance;
    const connecting = this.client.bus.connect(address, {
      notifications: {
        outputs: ({ data }) => {
          for (const output of data.outputs) {
            const followed = this.requests.get(output.requestId);
            followed?.accept(output);
            if (followed) this.onOutput?.(instance, followed);
          }
        },
      },
    });
    const peer = await this.wait(connecting);
    this.#peers.set(name, peer);
    await this.wait(peer.call("hello", { data: { frontendId: "f" } }));
    return peer;
  }

  peer({ name }: TestInstance): Peer {
    return this.#peers.get(name)!;
  }

  /** Has an instance expect request `r`, which runs at another one, by migration `m`. */
  async openMigration(destination: TestInstance, lengthTokens: number): Promise<void> {
    const data: MigrateInRequest = {
      migrationId: "m",
      sourceId: "x",
      requestId: "r",
      arrivalMs: 0,
      lengthTokens,
      isWaiting: false,
      model: "paged",
      backend: "in_process",
      layout: { ...destination.model.info.layout },
    };
    await this.wait(this.peer(destination).call("migrate_in", { data }));
  }

  async generate(instance: TestInstance, request: GenerateRequest): Promise<Followed> {
    const followed = this.follow(request);
    await this.wait(this.peer(instance).call("generate", { data: request }));
    return followed;
  }

  follow(request: GenerateRequest): Followed {
    const followed = new Followed(request);
    this.requests.set(request.requestId, followed);
    return followed;
  }

  /** As the manager orders it. */
  order(
    source: TestInstance,
    destination: TestInstance,
    order: Partial<MigrateOutOrder> = {},
  ): Promise<MigrationReport> {
    return source.llumlet.migrateOut({
      migrationId: `m${++this.#numOrders}`,
      destination: { instanceId: destination.name, address: destination.address },
      policy: "LCR",
      ...order,
    });
  }

  migrate(
    source: TestInstance,
    destination: TestInstance,
    order: Partial<MigrateOutOrder> = {},
  ): Promise<MigrationReport> {
    return this.wait(this.order(source, destination, order));
  }

  /** Lets time pass until a promise settles. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    promise.then(() => isSettled = true, () => isSettled = true);
    assert.ok(await this.clock.runUntil(() => isSettled), "nothing is left to happen");
    return await promise;
  }

  async until(isDone: () => boolean): Promise<void> {
    assert.ok(await this.clock.runUntil(isDone), "nothing is left to happen");
  }

  async pass(delayMs: number): Promise<void> {
    let isOver = false;
    this.clock.after(delayMs, () => isOver = true);
    await this.until(() => isOver);
  }

  /** Every request has ended, every block is free, and nothing broke. */
  async checkEnd(): Promise<void> {
    await this.until(() =>
      [...this.requests.values()].every(({ finishes }) => finishes.length > 0)
    );
    for (const followed of this.requests.values()) {
      followed.checkTokens();
      assert.equal(followed.finishes.length, 1, `ends of ${followed.request.requestId}`);
    }
    await this.pass(60);
    for (const { engine, fatal, name, isEmpty } of this.instances.values()) {
      assert.deepEqual(fatal, []);
      engine.check();
      assert.ok(isEmpty, `blocks of ${name} are not free`);
    }
  }
}

export interface Pair {
  readonly world: World;
  readonly a: TestInstance;
  readonly b: TestInstance;
}

/** Instances a and b, both connected to the API server. */
export async function pair(
  a: InstanceShape = {},
  b: InstanceShape = {},
  world = new World(),
): Promise<Pair> {
  const pair = { world, a: await world.add("a", a), b: await world.add("b", b) };
  await world.connect(pair.a);
  await world.connect(pair.b);
  return pair;
}
