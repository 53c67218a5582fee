import assert from "node:assert/strict";
import type { InstanceId, RequestId, RequestOutput } from "../../src/core/protocol/generate.ts";
import type { JoinRequest } from "../../src/core/protocol/membership.ts";
import { Random } from "../../src/core/random.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import type {
  ExitStatus,
  InstanceLauncher,
  LaunchedInstance,
} from "../../src/manager/fleet/launcher.ts";
import { Manager, type ManagerConfig } from "../../src/manager/manager.ts";
import type { ManagerEvent } from "../../src/manager/manager_event.ts";
import { SimNetwork } from "../../src/sim/network/sim_bus.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { FakeInstance, tokenAt } from "./fake_instance.ts";
import { generateRequest, managerOptions } from "./support.ts";

export const migration: NonNullable<ManagerConfig["migration"]> = {
  enableMigration: true,
  pairMigrationFrequency: 1,
  pairMigrationPolicy: "defrag_relaxed",
  migrateOutThreshold: 3,
  requestMigrationPolicy: "SR",
  enableDefrag: true,
  enablePdDisagg: false,
};

export interface FakeClusterConfig extends Partial<ManagerConfig> {
  /** A manager that knows nothing begins. */
  readonly onManagerStart?: () => void;
  /** Default: not known. */
  readonly hostNameOf?: (instanceId: InstanceId) => string;
}

/** One request and what its caller has seen of it. */
export class TrackedRequest {
  readonly outputs: RequestOutput[] = [];
  numResumptions = 0;
  isAborted = false;
  /** Why it was not accepted. */
  refusal: Error | null = null;
  isAccepted = false;

  constructor(readonly requestId: RequestId, readonly maxTokens: number) {}

  get hasEnded(): boolean {
    return this.isAborted || this.refusal !== null || this.finish !== undefined;
  }

  get finish() {
    return this.outputs.at(-1)?.finish;
  }

  get numTokens(): number {
    return this.outputs.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  }

  take(output: RequestOutput): void {
    assert.ok(!this.isAborted, `${this.requestId}: output after its abort`);
    assert.ok(!this.finish, `${this.requestId}: output after its finish`);
    assert.equal(output.index, this.numTokens, `${this.requestId}: index`);
    output.tokenIds.forEach((token, i) => {
      assert.equal(token, tokenAt(this.requestId, output.index + i), `${this.requestId}: token`);
    });
    this.outputs.push(output);
    if (output.finish?.reason === "length") assert.equal(this.numTokens, this.maxTokens);
  }
}

/** A manager, an API server and fake instances on a simulated network. */
export class FakeCluster {
  readonly clock = new VirtualClock(1_000_000);
  readonly random: Random;
  readonly network: SimNetwork;
  readonly instances = new Map<InstanceId, FakeInstance>();
  readonly requests = new Map<RequestId, TrackedRequest>();
  readonly events: ManagerEvent[] = [];
  /** How instances ended; the latest of each name. */
  readonly exits = new Map<InstanceId, ExitStatus>();
  manager!: Manager;
  client!: ClusterClient;
  /** Time until a launched instance begins. */
  launchDelayMs = 0;
  /** Where the manager starts instances, if it refuses to do so while that host is drained. */
  launchHost: string | null = null;
  /** Whether a manager can kill instances that it did not start. */
  isAdoptable = true;
  /** Whether an instance crashes as it computes this token. */
  isDeadly: (requestId: RequestId, index: number) => boolean = () => false;
  readonly #config: FakeClusterConfig;
  #numVisitors = 0;

  constructor(seed: number, config: FakeClusterConfig = {}) {
    this.random = new Random(seed);
    this.network = new SimNetwork({
      clock: this.clock,
      random: this.random,
      meanDelayMs: 2,
      keepAliveMs: 5_000,
    });
    this.#config = config;
  }

  async start(): Promise<void> {
    await this.run(this.#startManager());
    await this.run(this.manager.startInstances());
    const { bus, clock } = this.network.addNode("frontend");
    this.client = await this.run(ClusterClient.connect({
      bus,
      clock,
      managerAddress: "inproc:manager",
      frontendId: "frontend",
      onResume: (requestId) => this.requests.get(requestId)!.numResumptions++,
    }));
  }

  /** Lets time pass until a promise has settled. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settle = () => isSettled = true;
    promise.then(settle, settle);
    assert.ok(await this.clock.runUntil(() => isSettled), "nothing happens any more");
    return promise;
  }

  /** Lets time pass until something is so. */
  async until(condition: () => boolean, withinMs = 60_000): Promise<void> {
    const deadlineMs = this.clock.nowMs() + withinMs;
    await this.clock.runUntil(() => condition() || this.clock.nowMs() > deadlineMs);
    assert.ok(condition(), `not within ${withinMs} ms: ${condition}`);
  }

  async pass(ms: number): Promise<void> {
    const endMs = this.clock.nowMs() + ms;
    await this.clock.runUntil(() => this.clock.nowMs() >= endMs);
  }

  submit(requestId: RequestId, maxTokens = 50): TrackedRequest {
    const tracked = new TrackedRequest(requestId, maxTokens);
    this.requests.set(requestId, tracked);
    const request = generateRequest(requestId);
    const params = { ...request.params, maxTokens };
    this.client.submit({ ...request, params }, (output) => {
      assert.ok(tracked.isAccepted, `${requestId}: output before its acceptance`);
      tracked.take(output);
    }).then(() => tracked.isAccepted = true, (error) => tracked.refusal = error);
    return tracked;
  }

  abort(request: TrackedRequest): void {
    if (!request.hasEnded) request.isAborted = true;
    this.client.abort(request.requestId);
  }

  /** Instances that have a request. */
  holders(requestId: RequestId): FakeInstance[] {
    return [...this.instances.values()].filter(({ requests }) => requests.has(requestId));
  }

  /** Starts an instance of which the manager knows nothing yet. */
  startByHand(instanceId: InstanceId): FakeInstance {
    const instance = this.#start(instanceId, "inproc:manager");
    instance.startedBy = "hand";
    return instance;
  }

  /** What the manager says to a process that joins under a name, and does no more. */
  async joinAs(instanceId: InstanceId, more: Partial<JoinRequest>): Promise<void> {
    const { bus } = this.network.addNode(`visitor ${this.#numVisitors++}`);
    const manager = await bus.connect("inproc:manager", {});
    const data: JoinRequest = { instanceId, incarnation: crypto.randomUUID(), ...more };
    await manager.call("join", { data });
  }

  kill(instanceId: InstanceId): void {
    this.#launched.get(instanceId)?.stop("SIGKILL");
  }

  /** The manager's process ends without a word. */
  killManager(): void {
    this.network.kill("manager");
  }

  restartManager(survivors?: readonly InstanceId[], numWanted?: number): Promise<void> {
    return this.run(this.restartManagerSoon(survivors, numWanted));
  }

  /** For a caller that lets time pass itself. */
  async restartManagerSoon(
    survivors?: readonly InstanceId[],
    numWanted?: number,
  ): Promise<void> {
    await this.#startManager();
    await this.manager.recoverInstances(survivors, numWanted);
  }

  readonly #launched = new Map<InstanceId, LaunchedInstance>();

  readonly #launcher: InstanceLauncher = {
    refusal: (_, avoidHosts) => {
      return avoidHosts.has(this.launchHost ?? "") ? `${this.launchHost} is drained` : null;
    },
    adopt: ({ instanceId }) => {
      const launched = this.#launched.get(instanceId);
      if (!launched || !this.isAdoptable) return null;
      const instance = this.instances.get(instanceId);
      return {
        stop: launched.stop,
        hasEnded: () => this.instances.get(instanceId) !== instance,
      };
    },
    killOrphan: (instanceId) => {
      this.kill(instanceId);
      return this.#launched.has(instanceId);
    },
    launch: ({ instanceId, managerAddress }) => {
      this.#start(instanceId, managerAddress);
      return Promise.resolve(this.#launched.get(instanceId)!);
    },
  };

  #start(instanceId: InstanceId, managerAddress: string): FakeInstance {
    const exit = Promise.withResolvers<ExitStatus>();
    const end = (code: number | null, signal: string | null) => {
      if (this.instances.get(instanceId) !== instance) return;
      this.instances.delete(instanceId);
      this.exits.set(instanceId, { code, signal });
      this.network.kill(instanceId);
      exit.resolve({ code, signal });
    };
    const node = this.network.addNode(instanceId);
    const stop = () => end(0, null);
    const instance = new FakeInstance(node, instanceId, managerAddress, stop);
    instance.isDeadly = (requestId, index) => this.isDeadly(requestId, index);
    instance.hostName = this.#config.hostNameOf?.(instanceId);
    instance.onCrash = () => end(null, "SIGSEGV");
    this.instances.set(instanceId, instance);
    node.clock.after(this.launchDelayMs, () => instance.start().catch(() => end(1, null)));
    const launched: LaunchedInstance = {
      pid: 1,
      exited: exit.promise,
      stop: (signal) => end(null, signal),
    };
    this.#launched.set(instanceId, launched);
    return instance;
  }

  async #startManager(): Promise<void> {
    this.#config.onManagerStart?.();
    const { bus, clock } = this.network.addNode("manager");
    this.manager = await Manager.listen({
      bus,
      clock,
      addresses: ["inproc:manager"],
      options: managerOptions,
      launcher: this.#launcher,
      onEvent: (event) => this.events.push(event),
      ...this.#config,
    });
  }
}

/** Starts a cluster and runs `body` on it. */
export async function withFakeCluster(
  initialInstances: number,
  body: (cluster: FakeCluster) => Promise<void>,
  config: FakeClusterConfig = {},
): Promise<void> {
  const cluster = new FakeCluster(1, {
    options: { ...managerOptions, initialInstances },
    ...config,
  });
  await cluster.start();
  await body(cluster);
}
