import { ClusterClient } from "../../client/cluster_client.ts";
import { LeaderFence } from "../../core/leader_fence.ts";
import type { GenerateRequest } from "../../core/protocol/generate.ts";
import type { Leadership } from "../../core/protocol/leadership.ts";
import { Random } from "../../core/random.ts";
import { Manager } from "../../manager/manager.ts";
import type { ManagerEvent } from "../../manager/manager_event.ts";
import { VirtualClock } from "../clock/virtual_clock.ts";
import { RequestLedger } from "../fuzz/request_ledger.ts";
import type { Scenario, ScenarioRequest } from "../fuzz/scenario.ts";
import { SimFabric } from "../fuzz/sim_fabric.ts";
import { SimNetwork, type SimNode } from "../network/sim_bus.ts";
import { HostsChecks } from "./checks.ts";
import { type Plant, plantedManagerBus } from "./plants.ts";
import {
  type ActionOf,
  END_MS,
  engineScenario,
  type HostsAction,
  type HostsScenario,
  LOST_HOST_MS,
} from "./scenario.ts";
import { type Follower, SimHost } from "./sim_host.ts";

/** Its own, so that the scenario's random numbers are not the network's. */
const NETWORK_SEED = 2 ** 40;
/** Until another manager leads after one is gone. */
const TAKEOVER_MS = 1_500;
/** Until the process of a killed manager runs again. */
const RESTART_MS = 3_000;
/** Within this time a process learns who leads. */
const LEARN_MS = 400;
/** An order that a leader took so shortly before its end may be lost. */
const LOSABLE_MS = 1_500;
const NUM_CLIENTS = 2;
/** Longest time in which an agent that has lost an answer cannot come back. */
const MAX_AWAY_MS = 3_000;
/** More means a busy loop. */
const MAX_EVENTS = 3_000_000;

export interface HostsRun {
  readonly violations: readonly string[];
  readonly numLaunched: number;
  readonly numLeaders: number;
  readonly numFinished: number;
  /** 1: an order may have been lost with its leader, so that some checks are left out. */
  readonly isVague: number;
  /** Everything that happened, if asked for. */
  readonly trace: string;
}

/** Runs production managers, agents, instances and clients through a scenario. */
export async function runHostsScenario(
  scenario: HostsScenario,
  options: { readonly plant?: Plant | null; readonly isTraced?: boolean } = {},
): Promise<HostsRun> {
  return await new World(scenario, options.plant ?? null, options.isTraced ?? false).run();
}

/** A manager's process. */
interface ManagerProcess {
  readonly id: string;
  readonly node: SimNode;
  manager: Manager | null;
  leadership: Leadership | null;
}

interface Client extends Follower {
  readonly client: ClusterClient;
}

const managerNode = (index: number) => `manager ${index}`;
const managerAddress = (index: number) => `inproc:${managerNode(index)}`;

class World {
  readonly #clock = new VirtualClock();
  readonly #random: Random;
  readonly #network: SimNetwork;
  readonly #fabric: SimFabric;
  readonly #engine: Scenario;
  readonly #checks: HostsChecks;
  readonly #ledger: RequestLedger;
  readonly #hosts: SimHost[];
  readonly #managers: (ManagerProcess | null)[] = [];
  readonly #clients: Client[] = [];
  readonly #lines: string[] = [];
  #epoch = 0;
  /** Index of the manager that leads; null: none does. */
  #leader: number | null = null;
  #cutManagers = new Set<number>();
  #numPids = 0;
  #numIncarnations = 0;
  #numLaunched = 0;
  #orderedMs = -Infinity;
  /** What happens as the next order to start an instance arrives at an agent. */
  readonly #atStart: ((agent: string) => void)[] = [];

  constructor(
    private readonly scenario: HostsScenario,
    private readonly plant: Plant | null,
    private readonly isTraced: boolean,
  ) {
    const engine = this.#engine = engineScenario(scenario);
    this.#random = new Random(NETWORK_SEED + scenario.seed);
    this.#network = new SimNetwork({
      ...engine.network,
      clock: this.#clock,
      random: this.#random,
      onFrame: (_, to, text) => {
        if (text.includes('"agent_start"')) this.#atStart.shift()?.(to);
      },
    });
    this.#fabric = new SimFabric(this.#network, engine.transfer, () => {}, null);
    this.#hosts = scenario.hosts.map((plan) =>
      new SimHost({
        ...{ plan, engine, plant, network: this.#network, fabric: this.#fabric },
        random: this.#random,
        launchMs: scenario.launchMs,
        nextPid: () => ++this.#numPids,
        onLaunch: (host, request) => {
          this.#numLaunched++;
          this.#checks.onLaunch(host, request);
        },
        note: (who, what) => this.#note(`${who}: ${what}`),
        onDefect: (what) => this.#checks.fail(what),
      })
    );
    this.#checks = new HostsChecks(scenario, this.#hosts, () => this.#clock.nowMs());
    this.#ledger = new RequestLedger(engine.engine, (what) => this.#checks.fail(what), () => false);
  }

  async run(): Promise<HostsRun> {
    const { numManagers, hosts, requests, actions } = this.scenario;
    const clock = this.#clock;
    const onRejection = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      this.#checks.fail(`unhandled: ${event.reason?.stack ?? event.reason}`);
    };
    globalThis.addEventListener("unhandledrejection", onRejection);
    for (let i = 0; i < numManagers; i++) this.#startManager(i);
    clock.after(10, () => this.#lead(0));
    for (let i = 0; i < NUM_CLIENTS; i++) clock.after(20, () => this.#startClient(i));
    this.#hosts.forEach((host, i) => clock.after(30 + hosts[i].atMs, () => host.startAgent()));
    requests.forEach((request, i) => clock.after(request.atMs, () => this.#submit(i, request)));
    for (const action of actions) clock.after(action.atMs, () => this.#begin(action));
    let numEvents = 0;
    await clock.runUntil(() => clock.nowMs() >= END_MS || ++numEvents > MAX_EVENTS);
    if (numEvents > MAX_EVENTS) this.#checks.fail(`more than ${MAX_EVENTS} events`);
    else this.#checkEnd();
    globalThis.removeEventListener("unhandledrejection", onRejection);
    const { violations } = this.#checks;
    return {
      violations,
      numLaunched: this.#numLaunched,
      numLeaders: this.#epoch,
      numFinished:
        [...this.#ledger.entries.values()].filter(({ state }) => state === "ended").length,
      isVague: Number(this.#checks.numVague > 0),
      trace: this.#lines.join("\n"),
    };
  }

  #note(line: string): void {
    if (this.isTraced) this.#lines.push(`${this.#clock.nowMs().toFixed().padStart(6)} ${line}`);
  }

  async #startManager(index: number): Promise<void> {
    const node = this.#network.addNode(managerNode(index));
    const id = `${node.name}#${++this.#numIncarnations}`;
    const process: ManagerProcess = { id, node, manager: null, leadership: null };
    this.#managers[index] = process;
    await this.#listen(process);
  }

  async #listen(process: ManagerProcess): Promise<void> {
    const { scenario: { initialInstances, isScaled }, plant } = this;
    const { manager, migration, scaling, timeouts, seed } = this.#engine;
    process.manager = await Manager.listen({
      bus: plantedManagerBus(process.node.bus, plant),
      clock: process.node.clock,
      addresses: [`inproc:${process.node.name}`],
      options: { ...manager, initialInstances },
      migration,
      scaling: { ...scaling, enableScaling: isScaled },
      launcher: null,
      instanceTimeoutMs: timeouts.instanceMs,
      drainTimeoutMs: timeouts.drainMs,
      lostHostMs: plant === "dead_host_keeps_its_share" ? Infinity : LOST_HOST_MS,
      seed,
      cluster: {
        processId: process.id,
        leadership: () => process.leadership,
        onSuperseded: () => this.#follow(process),
      },
      onEvent: (event) => this.#onEvent(process, event),
    });
  }

  #onEvent(process: ManagerProcess, event: ManagerEvent): void {
    if (process.leadership === null || !this.#managers.includes(process)) return;
    if (event.type !== "dispatched" && event.type !== "ended") {
      this.#note(`${process.id}: ${JSON.stringify(event)}`);
    }
    this.#checks.onEvent(event);
  }

  /** A manager leads from now on; all others learn it sooner or later. */
  #lead(index: number): void {
    const process = this.#managers[index];
    if (!process?.manager) return this.#takeOver();
    const leadership = process.leadership = { epoch: ++this.#epoch, leader: process.id };
    this.#note(`${process.id} leads in epoch ${this.#epoch}`);
    if (this.#epoch > 1) this.#noteForgotten();
    this.#leader = index;
    const { manager } = process;
    const started = this.#epoch > 1 ? manager.recoverInstances() : manager.startInstances();
    started.catch(() => {}); // it may lead no more
    const address = managerAddress(index);
    for (const host of this.#hosts) host.leader = { leadership, address };
    const followers = [...this.#clients, ...this.#hosts.flatMap((host) => host.followers)];
    for (const { node, fence, moveTo } of followers) {
      node.clock.after(LEARN_MS * this.#random.uniform(), () => {
        if (this.#epoch !== leadership.epoch) return;
        fence.learn(leadership);
        moveTo(address);
      });
    }
  }

  /** A manager is told that another one leads, and starts anew. */
  async #follow(process: ManagerProcess): Promise<void> {
    if (process.leadership === null || process.leadership.epoch === this.#epoch) return;
    this.#note(`${process.id} follows`);
    process.leadership = null;
    const { manager } = process;
    // It leads again only once it listens again.
    if (this.plant !== "leads_again_in_the_old_role") process.manager = null;
    await manager?.handOver(0);
    if (this.#managers.includes(process)) await this.#listen(process);
  }

  /** There is no leader; another manager takes over in a while. */
  #takeOver(): void {
    this.#leader = null;
    this.#clock.after(TAKEOVER_MS * (0.3 + this.#random.uniform()), () => {
      if (this.#leader !== null) return;
      // The one that led last goes on if no other has led since.
      const last = this.#managers.findIndex((one) => one?.leadership?.epoch === this.#epoch);
      if (last >= 0 && !this.#cutManagers.has(last)) return void (this.#leader = last);
      const able = this.#managers.flatMap((process, index) =>
        process?.manager && !this.#cutManagers.has(index) && process.leadership === null
          ? [index]
          : []
      );
      if (able.length === 0) this.#takeOver();
      else this.#lead(able[this.#random.below(able.length)]);
    });
  }

  #killLeader(): void {
    const index = this.#leader;
    if (index === null) return;
    this.#noteLosable();
    this.#note(`${managerNode(index)} is killed`);
    this.#managers[index] = null;
    this.#network.kill(managerNode(index));
    this.#takeOver();
    this.#clock.after(RESTART_MS, () => this.#startManager(index));
  }

  /** The leader goes: what it has just been told may be known to nobody else. */
  #noteLosable(): void {
    if (this.#clock.nowMs() - this.#orderedMs < LOSABLE_MS) this.#checks.numVague++;
    this.#checks.numVague += this.#checks.numAdding;
    this.#noteForgotten();
  }

  /** Nobody is there who keeps what former leaders were told. */
  #noteForgotten(): void {
    const isKept = this.#hosts.some((host) =>
      host.isUp && host.cutUntilMs < this.#clock.nowMs() &&
      (host.agent !== null || host.alive.some(({ sim }) => sim.instance.engine !== null))
    );
    if (!isKept) this.#checks.numVague++;
  }

  async #startClient(index: number): Promise<void> {
    const node = this.#network.addNode(`client ${index}`);
    const fence = new LeaderFence(node.name);
    const client = await ClusterClient.connect({
      bus: node.bus,
      clock: node.clock,
      managerAddress: managerAddress(0),
      frontendId: node.name,
      fence,
      onResume: (id, reason) => this.#note(`${node.name}: resumes ${id}: ${reason}`),
    });
    this.#clients[index] = { node, fence, client, moveTo: (to) => client.switchManager(to) };
  }

  #submit(number: number, { client, promptTokenIds, params, priority }: ScenarioRequest): void {
    const { client: to, node } = this.#clients[client];
    const request: GenerateRequest = {
      requestId: `r${number}`,
      frontendId: to.frontendId,
      promptTokenIds,
      outputTokenIds: [],
      params,
      priority,
      arrivalMs: node.clock.nowMs(),
    };
    const entry = this.#ledger.add(request);
    to.submit(request, (output) => this.#ledger.output(entry, output)).then(
      () => this.#ledger.accepted(entry),
      (error) => this.#ledger.refused(entry, error),
    );
  }

  #begin(action: HostsAction): void {
    this.#note(`-- ${JSON.stringify(action)}`);
    const hosts = this.#hosts.filter(({ isUp }) => isUp);
    switch (action.type) {
      case "crash_instance":
        return this.#crash(action.instance);
      case "crash_agent":
      case "reset_agent":
      case "lose_host":
      case "cut_host":
      case "stop_host":
        if (hosts.length > 0) this.#disturb(hosts[action.host % hosts.length], action);
        return;
      case "lose_answer":
        this.#atStart.push((agent) => {
          const afterMs = this.#random.uniform() ** 4 * this.scenario.launchMs;
          const forMs = this.#random.below(2) * this.#random.below(MAX_AWAY_MS);
          this.#clock.after(afterMs, () => {
            if (this.#leader === null) return;
            this.#note(`the connection of ${agent} breaks for ${forMs} ms`);
            this.#network.breakConnections(agent, managerNode(this.#leader));
            if (forMs > 0) this.#cut([agent], forMs);
          });
        });
        return this.#crash(action.instance);
      case "kill_leader_at_start":
        this.#atStart.push(() => this.#clock.soon(() => this.#killLeader()));
        return this.#crash(action.instance);
      case "kill_leader":
        return this.#killLeader();
      case "change_leader":
        return this.#changeLeader();
      case "cut_leader":
        return this.#cutLeader(action.forMs);
      default:
        return this.#order(action);
    }
  }

  #crash(number: number): void {
    const alive = this.#hosts.flatMap((host) => host.alive.map(({ sim }) => ({ host, sim })));
    if (alive.length === 0) return;
    const { host, sim } = alive[number % alive.length];
    host.exit(sim, { code: null, signal: "SIGSEGV" });
  }

  #disturb(
    host: SimHost,
    action: ActionOf<"crash_agent" | "reset_agent" | "lose_host" | "cut_host" | "stop_host">,
  ): void {
    const { name, agent } = host;
    this.#note(`-- of host ${name}`);
    const again = (forMs: number) => {
      if (forMs === Infinity) return;
      this.#clock.after(forMs, () => {
        if (host.agent === null) host.startAgent();
      });
    };
    switch (action.type) {
      case "reset_agent":
        return this.#network.breakConnections(`${name}/agent`);
      case "crash_agent":
        if (agent === null || host.isStopping) return;
        host.killAgent();
        return again(action.forMs);
      case "lose_host":
        host.lose();
        return again(action.forMs);
      case "stop_host":
        if (agent === null || host.isStopping) return;
        host.stopAgent().then(() => host.agent === null && again(action.forMs));
        return;
      case "cut_host":
        host.cutUntilMs = Math.max(host.cutUntilMs, this.#clock.nowMs() + action.forMs);
        return this.#cut(host.nodes, action.forMs);
    }
  }

  #cutLeader(forMs: number): void {
    const index = this.#leader;
    if (index === null) return;
    this.#noteLosable();
    this.#cutManagers.add(index);
    const process = this.#managers[index]!;
    this.#cut([managerNode(index)], forMs);
    this.#clock.after(forMs, () => {
      this.#cutManagers.delete(index);
      this.#tellFormer(process);
    });
    this.#takeOver();
  }

  #changeLeader(): void {
    const index = this.#leader;
    if (index === null) return;
    const able = this.#managers.flatMap((process, i) =>
      i !== index && process?.manager && process.leadership === null && !this.#cutManagers.has(i)
        ? [i]
        : []
    );
    if (able.length === 0) return;
    this.#noteLosable();
    const former = this.#managers[index]!;
    this.#lead(able[this.#random.below(able.length)]);
    this.#tellFormer(former);
  }

  /** A manager that led reads in the store who leads now. */
  #tellFormer(process: ManagerProcess): void {
    this.#clock.after(2_000 * this.#random.uniform(), () => {
      if (!this.#managers.includes(process) || process.leadership === null) return;
      if (this.#leader === null) this.#tellFormer(process);
      else this.#follow(process);
    });
  }

  /** Nothing passes between these nodes and the others. */
  #cut(nodes: readonly string[], forMs: number): void {
    const others = [
      ...this.#managers.map((_, i) => managerNode(i)),
      ...this.#clients.map(({ node }) => node.name),
      ...this.#hosts.flatMap((host) => host.nodes),
    ].filter((name) => !nodes.includes(name));
    const pairs = nodes.flatMap((a) => others.flatMap((b) => [[a, b], [b, a]] as const));
    for (const [a, b] of pairs) this.#network.block(a, b);
    this.#clock.after(forMs, () => {
      this.#note(`-- ${nodes.join(", ")} can be reached again`);
      for (const [a, b] of pairs) this.#network.heal(a, b);
    });
  }

  /** An operator orders; without a leader the order is refused. */
  #order(action: ActionOf<"add" | "remove" | "drain" | "drain_host" | "keep_host">): void {
    const index = this.#leader;
    const manager = index === null ? null : this.#managers[index]?.manager ?? null;
    if (manager === null || this.scenario.isScaled) return;
    this.#orderedMs = this.#clock.nowMs();
    const before = manager.numWanted;
    const checks = this.#checks;
    if (action.type === "add") return void this.#add(manager);
    if (action.type === "remove" || action.type === "drain") {
      const instances = manager.instances();
      if (instances.length < 2) return; // requests wait for ever if the only one is drained
      const { instanceId } = instances[action.instance % instances.length];
      this.#note(`-- ${action.type} ${instanceId}`);
      if (action.type === "drain") manager.drain(instanceId).catch(() => {});
      else manager.removeInstance(instanceId).catch(() => {});
      checks[action.type === "drain" ? "drained" : "removed"].add(instanceId);
    } else {
      const names = manager.hosts().map(({ hostName }) => hostName);
      const hostName = names[action.host % names.length];
      if (hostName === undefined) return;
      this.#note(`-- ${action.type} ${hostName}`);
      if (action.type === "drain_host") {
        manager.drainHost(hostName, action.atOnce ?? undefined).catch(() => {});
        checks.drainedHosts.set(hostName, this.#clock.nowMs());
      } else this.#keep(manager, hostName);
    }
    checks.change += manager.numWanted - before;
  }

  #keep(manager: Manager, hostName: string): void {
    manager.keepHost(hostName);
    this.#checks.drainedHosts.delete(hostName);
    for (const registration of manager.instances()) {
      if (registration.hostName !== hostName) continue;
      this.#checks.drained.delete(registration.instanceId);
      this.#checks.removed.delete(registration.instanceId);
    }
  }

  async #add(manager: Manager): Promise<void> {
    const epoch = this.#epoch, checks = this.#checks;
    checks.numAdding++;
    try {
      await manager.addInstance();
      this.#orderedMs = this.#clock.nowMs();
      if (epoch === this.#epoch && this.#leader !== null) checks.change++;
    } catch {
      // There is no room, or the start has failed.
    } finally {
      checks.numAdding--;
    }
  }

  #checkEnd(): void {
    const checks = this.#checks;
    for (const { state, request, tokenIds } of this.#ledger.entries.values()) {
      if (state === "ended" || !this.#canServe) continue;
      checks.fail(`${request.requestId} does not end: ${state}, ${tokenIds.length} tokens`);
    }
    const manager = this.#leader === null ? null : this.#managers[this.#leader]?.manager;
    if (!manager) checks.fail("no manager leads at the end");
    else checks.checkEnd(manager);
  }

  /** An instance may run that is not drained: else requests wait. */
  get #canServe(): boolean {
    const { drainedHosts, drained } = this.#checks;
    return this.#hosts.some(({ name, isUp, alive }) =>
      isUp && !drainedHosts.has(name) && alive.some(({ sim }) => !drained.has(sim.instanceId))
    );
  }
}
