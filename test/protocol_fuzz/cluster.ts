/** A manager, two instances and an API server that behave, over sockets within this process. */
import assert from "node:assert/strict";
import { openBus } from "../../src/bus/open_bus.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import { UnavailableError } from "../../src/core/errors.ts";
import type { GenerateRequest, RequestOutput } from "../../src/core/protocol/generate.ts";
import { Pacer } from "../../src/executor/sim/pacer.ts";
import { SimExecutor } from "../../src/executor/sim/sim_executor.ts";
import { resolveSimulation } from "../../src/executor/sim/simulation.ts";
import { Instance } from "../../src/instance/instance.ts";
import { MigrationPeers } from "../../src/instance/llumlet/migration_peers.ts";
import { AccountedKvPool } from "../../src/kv/pool/accounted_kv_pool.ts";
import { RayRpcBackend } from "../../src/kv/transfer/rayrpc/rayrpc_backend.ts";
import { Manager } from "../../src/manager/manager.ts";
import { engineOptions, generateRequest } from "../instance/support.ts";
import { managerOptions } from "../manager/support.ts";
import { PATIENCE_MS } from "../patience.ts";
import { Recorder } from "./conversation.ts";

const NUM_INSTANCES = 2;
const OUTPUT_TOKENS = 12;

/** An instance that serves at a manager. */
export function makeInstance(
  instanceId: string,
  managerAddress: string,
  recorder = new Recorder(),
): Instance {
  const bus = recorder.record(openBus(), "instance");
  return new Instance({
    options: engineOptions({
      device: "sim",
      model: "llama-7b",
      speedup: 10,
      numGpuBlocksOverride: 64,
      maxModelLen: 512,
    }),
    instanceId,
    managerAddress,
    hostShare: 1,
    pid: Deno.pid,
    clock: realClock,
    bus,
    loadExecutor: ({ options }) => {
      const simulation = resolveSimulation(options);
      const pacer = new Pacer(() => realClock.nowMs(), (delayMs) => sleep(realClock, delayMs));
      const wait = (delayMs: number) => pacer.wait(delayMs);
      return Promise.resolve(new SimExecutor({ simulation, speedup: options.speedup, wait }));
    },
    rejoinTimeoutMs: 0,
    migration: {
      limits: { lastStageMaxBlocks: 1, maxStages: 8 },
      openBackend: ({ info: { layout, numBlocks } }) =>
        new RayRpcBackend({
          pool: new AccountedKvPool(layout, numBlocks),
          limits: { bufferBlocks: 8, numLayers: layout.numLayers },
          clock: realClock,
          links: new MigrationPeers(bus, realClock, () => {}),
        }),
    },
  });
}

export class FuzzCluster implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "llumnix-fuzz-" });
  readonly managerPath = `${this.directory}/manager.sock`;
  readonly recorder = new Recorder();
  #manager!: Manager;
  #client!: ClusterClient;
  #numRequests = 0;

  static async open(): Promise<FuzzCluster> {
    const cluster = new FuzzCluster();
    await cluster.#start();
    return cluster;
  }

  instancePath(i: number): string {
    return `${this.directory}/instance-${i}.sock`;
  }

  async #start(): Promise<void> {
    let numLaunched = 0;
    this.#manager = await Manager.listen({
      bus: openBus(),
      addresses: [`unix:${this.managerPath}`],
      options: { ...managerOptions, initialInstances: NUM_INSTANCES, pollingInterval: 0.02 },
      launcher: {
        launch: ({ instanceId, managerAddress }) => {
          if (numLaunched++ >= NUM_INSTANCES) {
            return Promise.reject(new UnavailableError("there are instances enough"));
          }
          const instance = makeInstance(instanceId, managerAddress, this.recorder);
          const ended = instance.run().then(async ({ exitCode }) => {
            await instance.close();
            return { code: exitCode, signal: null };
          });
          return Promise.resolve({
            pid: Deno.pid,
            exited: ended,
            stop: (signal) => instance.stop(signal),
          });
        },
      },
      clock: realClock,
      rejoinWaitMs: 0,
      stopTimeoutMs: 200,
    });
    await this.#manager.startInstances();
    this.#client = await ClusterClient.connect({
      bus: this.recorder.record(openBus(), "api-server"),
      managerAddress: `unix:${this.managerPath}`,
      frontendId: "good",
      clock: realClock,
    });
  }

  /** Has every kind of conversation once, for the recorder. */
  async converse(): Promise<void> {
    await this.checkServes();
    const { request, begun, done } = await this.#submit({ maxTokens: 200, logprobs: 2 });
    await begun;
    const { requests } = await this.#client.admin("admin_requests", null);
    const [{ instanceId }] = requests.filter(({ requestId }) => requestId === request.requestId);
    const destinationId = instanceId === "instance-0" ? "instance-1" : "instance-0";
    await this.#client.admin("admin_migrate", { requestId: request.requestId, destinationId });
    await done();
    const aborted = await this.#submit({ maxTokens: 300 });
    this.#client.abort(aborted.request.requestId);
    await this.#client.admin("admin_instances", null);
    await this.#client.monitor.events({ after: 0 });
    await this.#client.monitor.state();
    await this.#client.admin("admin_drain", { instanceId: "instance-1" });
    await this.#client.admin("admin_keep", { instanceId: "instance-1" });
    await this.checkServes();
  }

  /** All instances are there, and a request of a client that behaves has its whole answer. */
  async checkServes(): Promise<void> {
    const names = this.#manager.instances().map(({ instanceId }) => instanceId);
    for (let i = 0; i < NUM_INSTANCES; i++) {
      assert.ok(names.includes(`instance-${i}`), `instance-${i} is gone`);
    }
    const { done } = await this.#submit({ maxTokens: OUTPUT_TOKENS });
    const outputs = await done();
    assert.equal(outputs.flatMap(({ tokenIds }) => tokenIds).length, OUTPUT_TOKENS);
    assert.equal(outputs.at(-1)!.finish!.reason, "length");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close();
    await this.#manager.stop();
    Deno.removeSync(this.directory, { recursive: true });
  }

  async #submit(params: Partial<GenerateRequest["params"]>) {
    const requestId = `good-${this.#numRequests++}`;
    const request = generateRequest(requestId, 40, params, { frontendId: "good" });
    const outputs: RequestOutput[] = [];
    const begun = Promise.withResolvers<void>();
    const finished = Promise.withResolvers<RequestOutput[]>();
    await this.#client.submit(request, (output) => {
      outputs.push(output);
      if (outputs.length === 3) begun.resolve();
      if (output.finish) finished.resolve(outputs);
    });
    const done = async () => {
      const timeout = setTimeout(() => {
        finished.reject(new Error(`${requestId} has no answer: ${JSON.stringify(outputs.at(-1))}`));
      }, PATIENCE_MS);
      return await finished.promise.finally(() => clearTimeout(timeout));
    };
    return { request, begun: begun.promise, done };
  }
}
