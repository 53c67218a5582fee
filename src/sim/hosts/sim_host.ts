import { HostAgent } from "../../agent/host_agent.ts";
import type { InstanceRecords, RecordedInstance } from "../../agent/instance_records.ts";
import type { Bus, CallHandler } from "../../bus/bus.ts";
import { sleep } from "../../core/clock.ts";
import { LeaderFence } from "../../core/leader_fence.ts";
import type { Log } from "../../core/log.ts";
import type { Leadership } from "../../core/protocol/leadership.ts";
import type { Random } from "../../core/random.ts";
import type { ExitStatus, LaunchedInstance, LaunchRequest } from "../../manager/fleet/launcher.ts";
import type { Scenario } from "../fuzz/scenario.ts";
import type { SimFabric } from "../fuzz/sim_fabric.ts";
import { SimInstance } from "../fuzz/sim_instance.ts";
import type { SimNetwork, SimNode } from "../network/sim_bus.ts";
import { type Plant, plantedBus } from "./plants.ts";
import type { HostPlan } from "./scenario.ts";

/** What an agent takes to end on top of the time to drain. */
const END_MS = 5_000;

export interface SimHostConfig {
  readonly plan: HostPlan;
  readonly network: SimNetwork;
  readonly fabric: SimFabric;
  readonly random: Random;
  readonly engine: Scenario;
  readonly launchMs: number;
  readonly plant: Plant | null;
  /** Number of the next process. */
  readonly nextPid: () => number;
  /** An instance is about to be started. */
  readonly onLaunch: (host: SimHost, request: LaunchRequest) => void;
  readonly note: (who: string, what: string) => void;
  readonly onDefect: (what: string) => void;
}

/** A process of a host that is told who leads. */
export interface Follower {
  readonly node: SimNode;
  readonly fence: LeaderFence;
  moveTo(address: string): void;
}

/** An instance's process, and what it knows of the leader. */
export interface HostedSim {
  readonly sim: SimInstance;
  readonly fence: LeaderFence;
}

/** A host: the production agent, and production instances as processes that outlive it. */
export class SimHost {
  readonly instances: HostedSim[] = [];
  agent: HostAgent | null = null;
  /** Its processes can run. */
  isUp = false;
  /** Nothing passes to or from it until this time. */
  cutUntilMs = -Infinity;
  /** The agent was asked to stop, and has not started again. */
  isStopping = false;
  readonly #config: SimHostConfig;
  #agentFence = new LeaderFence("agent");
  #agentNode: SimNode | null = null;
  #records: readonly RecordedInstance[] = [];
  /** Where the leader is, as a process of this host learns when it starts. */
  leader: { readonly leadership: Leadership; readonly address: string } | null = null;

  constructor(config: SimHostConfig) {
    this.#config = config;
  }

  get plan(): HostPlan {
    return this.#config.plan;
  }

  get name(): string {
    return this.plan.name;
  }

  get alive(): HostedSim[] {
    return this.instances.filter(({ sim }) => sim.isAlive);
  }

  /** Names of the nodes of its processes. */
  get nodes(): string[] {
    return [this.#agentName, ...this.alive.map(({ sim }) => sim.name)];
  }

  /** Processes that want to know who leads. */
  get followers(): Follower[] {
    const instances = this.alive.map(({ sim, fence }) => ({
      node: sim.node,
      fence,
      moveTo: (address: string) => sim.instance.moveTo(address),
    }));
    const agent = this.agent, node = this.#agentNode;
    if (agent === null || node === null) return instances;
    const fence = this.#agentFence;
    return [{ node, fence, moveTo: (address) => agent.moveTo(address) }, ...instances];
  }

  get #agentName(): string {
    return `${this.name}/agent`;
  }

  startAgent(): void {
    const { plan, network, plant, nextPid, note } = this.#config;
    const node = this.#agentNode = network.addNode(this.#agentName);
    const fence = this.#agentFence = new LeaderFence(`host ${plan.name}`);
    this.isUp = true;
    this.isStopping = false;
    const bus = plantedBus(node.bus, plant);
    const say = (message: string) => note(this.#agentName, message);
    const log: Log = { debug() {}, info: say, warn: say, error: say };
    this.agent = new HostAgent({
      bus: plant === "start_is_not_idempotent" ? this.#withRepeatedStarts(bus, node) : bus,
      clock: node.clock,
      log,
      fence,
      facts: {
        host: plan.name,
        pid: nextPid(),
        machine: plan.name,
        resources: { cudaDevices: 0, cores: 1, memoryBytes: 1 },
        slots: plan.slots + (plant === "slots_are_oversubscribed" ? 1 : 0),
        initialInstances: plan.initialInstances,
      },
      launcher: { launch: (request) => this.#launch(request, node) },
      records: this.#recordsOf(plant),
      startOf: (pid) => `start of ${pid}`,
      find: ({ pid }) => {
        const found = this.alive.find(({ sim }) => this.#pidOf(sim) === pid);
        if (found === undefined) return null;
        const { sim } = found;
        return { hasEnded: () => !sim.isAlive, stop: (signal) => this.#signal(sim, signal) };
      },
    });
    if (this.leader !== null) {
      fence.learn(this.leader.leadership);
      this.agent.moveTo(this.leader.address);
    }
  }

  /** The agent's process ends; instances go on. */
  killAgent(): void {
    if (this.agent === null) return;
    this.agent = null;
    this.#agentNode = null;
    this.#config.network.kill(this.#agentName);
  }

  /** The agent takes the host out of the service, and its process ends. */
  async stopAgent(): Promise<void> {
    const { agent } = this, node = this.#agentNode;
    if (agent === null) return;
    this.isStopping = true;
    await agent.stop(this.#config.engine.timeouts.drainMs + END_MS);
    if (this.#agentNode === node) this.killAgent();
  }

  /** The power is gone: what ran here, and what was written down, is no more. */
  lose(): void {
    this.isUp = false;
    this.killAgent();
    this.#records = [];
    for (const { sim } of this.alive) this.exit(sim, { code: null, signal: "SIGKILL" });
  }

  exit(sim: SimInstance, status: ExitStatus): void {
    if (!sim.isAlive) return;
    const { network, fabric, note } = this.#config;
    note(sim.name, `exits: ${JSON.stringify(status)}`);
    network.kill(sim.name);
    fabric.close(sim.name);
    sim.noteExit(status);
  }

  readonly #pids = new Map<SimInstance, number>();

  #pidOf(sim: SimInstance): number | undefined {
    return this.#pids.get(sim);
  }

  #recordsOf(plant: Plant | null): InstanceRecords {
    return {
      read: () => plant === "agent_forgets_instances" ? [] : this.#records,
      write: (instances) => this.#records = instances,
      clear: () => this.#records = [],
    };
  }

  /** The planted bug: an order that comes again starts another process. */
  #withRepeatedStarts(bus: Bus, node: SimNode): Bus {
    const started = new Set<string>();
    return {
      listen: (address, service) => bus.listen(address, service),
      connect: (address, service, options) => {
        const agent_start: CallHandler<"agent_start"> = (message, peer) => {
          const { instanceId } = message.data;
          if (started.has(instanceId)) {
            this.#launch({ ...message.data, startedBy: "manager" }, node);
          }
          started.add(instanceId);
          return service.calls!.agent_start!(message, peer);
        };
        const calls = { ...service.calls, agent_start };
        return bus.connect(address, { ...service, calls }, options);
      },
    };
  }

  async #launch(request: LaunchRequest, agentNode: SimNode): Promise<LaunchedInstance> {
    const { network, fabric, random, engine, launchMs, plant, plan, nextPid, note } = this.#config;
    await sleep(agentNode.clock, launchMs * random.uniform());
    this.#config.onLaunch(this, request);
    const pid = nextPid();
    const node = network.addNode(`${plan.name}/${request.instanceId}#${pid}`);
    const fence = new LeaderFence(request.instanceId);
    const planted = { ...node, bus: plantedBus(node.bus, plant) };
    const sim = new SimInstance({
      ...{ scenario: engine, request, node: planted, random, pid, fabric, fence },
      hostName: plan.name,
      onDeath: () => {},
    });
    this.#pids.set(sim, pid);
    this.instances.push({ sim, fence });
    note(sim.name, "starts");
    node.clock.after(10 + 300 * random.exponential(), () => this.#run(sim, fence));
    return {
      pid,
      exited: new Promise((resolve) => {
        sim.exited.then((status) => agentNode.clock.after(1, () => resolve(status)));
      }),
      stop: (signal) => this.#signal(sim, signal),
    };
  }

  async #run(sim: SimInstance, fence: LeaderFence): Promise<void> {
    const { note, onDefect } = this.#config;
    if (this.leader !== null) {
      fence.learn(this.leader.leadership);
      sim.instance.moveTo(this.leader.address);
    }
    const { reason, error, exitCode } = await sim.instance.run();
    note(sim.name, `stops: ${reason}`);
    if (error !== undefined && exitCode === 1 && !(error as { kind?: string }).kind) {
      onDefect(`${sim.name} failed: ${error instanceof Error ? error.stack : error}`);
    }
    await sim.instance.close();
    this.exit(sim, { code: exitCode, signal: null });
  }

  #signal(sim: SimInstance, signal: "SIGTERM" | "SIGKILL"): void {
    if (!sim.isAlive) return;
    this.#config.note(sim.name, `gets ${signal}`);
    if (signal === "SIGKILL") this.exit(sim, { code: null, signal });
    else sim.node.clock.soon(() => sim.instance.drain("got SIGTERM"));
  }
}
