import { LlumnixError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type {
  MigrateCommitRequest,
  MigrateOutOrder,
  MigrationReport,
} from "../../core/protocol/migration.ts";
import { Random } from "../../core/random.ts";
import { ClusterClient } from "../../client/cluster_client.ts";
import type { ExitStatus, LaunchedInstance, LaunchRequest } from "../../manager/fleet/launcher.ts";
import { Manager } from "../../manager/manager.ts";
import type { ManagerEvent } from "../../manager/manager_event.ts";
import { CommitWatch } from "./commit_watch.ts";
import { GroupWatch } from "./group_watch.ts";
import { FAULTS_END_MS, type Scenario, TRANSFER_ROUND } from "./scenario.ts";
import { SimNetwork, type SimNode } from "../network/sim_bus.ts";
import { SimFabric } from "./sim_fabric.ts";
import { SimGroups } from "./sim_group.ts";
import { SimInstance } from "./sim_instance.ts";
import { describeFrame, recordsOf, Trace } from "./trace.ts";
import { VirtualClock } from "../clock/virtual_clock.ts";

export const MANAGER_NODE = "manager";
const MANAGER_ADDRESS = "inproc:manager";
/** Far from 0, like real time. */
const START_MS = Date.UTC(2026, 0, 1);
/** Mean time until a launched process runs. */
const LAUNCH_MS = 20;

export interface SimClient {
  readonly node: SimNode;
  readonly client: ClusterClient;
  isAlive: boolean;
}

interface AwaitedMessage {
  /** The method with its quotes, as frames contain it. */
  readonly name: string;
  /** How many more such messages are awaited. */
  count: number;
  readonly happen: (from: string, to: string) => void;
}

/**
 * A whole cluster in this process: the production manager, instances and API server clients, each on its
 * own node of a simulated network. The models of its instances notice every misplaced block.
 */
export class SimCluster {
  readonly scenario: Scenario;
  readonly clock = new VirtualClock(START_MS);
  readonly random: Random;
  readonly network: SimNetwork;
  readonly fabric: SimFabric;
  readonly trace: Trace;
  /** Null if the migration backend needs no group. */
  readonly groupWatch: GroupWatch | null;
  /** All instances in the order of their launch, dead ones too. */
  readonly instances: SimInstance[] = [];
  readonly clients: SimClient[] = [];
  /** Reports of all migrations that a manager received. */
  readonly reports: MigrationReport[] = [];
  /** Instances that a manager reported as lost. */
  numLost = 0;
  readonly #commitWatch: CommitWatch;
  readonly #onViolation: (what: string) => void;
  #managerNode: SimNode | null = null;
  #manager: Manager | null = null;
  #numManagers = 0;
  readonly #awaited: AwaitedMessage[] = [];

  /** @param onViolation called with a description of what must not happen and did */
  constructor(scenario: Scenario, isTraced: boolean, onViolation: (what: string) => void) {
    this.scenario = scenario;
    // Another stream than the one from which the scenario was drawn.
    this.random = new Random(scenario.seed + 2 ** 40);
    this.trace = new Trace(() => this.elapsedMs, isTraced);
    this.#onViolation = onViolation;
    this.#commitWatch = new CommitWatch(this.clock, onViolation);
    this.network = new SimNetwork({
      ...scenario.network,
      clock: this.clock,
      random: this.random,
      onFrame: (from, to, text) => this.#onFrame(from, to, text),
    });
    const groups = this.#makeGroups();
    this.groupWatch = groups && new GroupWatch(groups, scenario, onViolation);
    this.fabric = new SimFabric(
      this.network,
      scenario.transfer,
      (from, to) => this.#notice(from, to, `"${TRANSFER_ROUND}"`),
      groups,
    );
  }

  get elapsedMs(): number {
    return this.clock.nowMs() - START_MS;
  }

  /** Null while no manager runs. */
  get manager(): Manager | null {
    return this.#manager;
  }

  /** Instances whose process runs. */
  get aliveInstances(): readonly SimInstance[] {
    return this.instances.filter(({ isAlive }) => isAlive);
  }

  /** Instances whose process runs and that are not being removed. */
  get availableInstances(): readonly SimInstance[] {
    return this.instances.filter(({ isAlive, isBeingRemoved }) => isAlive && !isBeingRemoved);
  }

  get aliveClients(): readonly SimClient[] {
    return this.clients.filter(({ isAlive }) => isAlive);
  }

  /** Ids of the instances that serve, according to the manager. */
  get servingIds(): readonly InstanceId[] {
    return this.#manager?.instances().map(({ instanceId }) => instanceId) ?? [];
  }

  /** Whether the instance serves, according to the manager. */
  isServing({ instanceId }: SimInstance): boolean {
    return this.servingIds.includes(instanceId);
  }

  /** Starts the manager and its instances, then the clients. */
  async start(): Promise<void> {
    await this.#startManager();
    await this.#manager!.startInstances();
    for (let i = 0; i < this.scenario.numClients; i++) {
      const node = this.network.addNode(`client-${i}`, this.#skewMs());
      const client = await ClusterClient.connect({
        bus: node.bus,
        managerAddress: MANAGER_ADDRESS,
        frontendId: node.name,
        clock: node.clock,
        onManagerLost: (reason) => this.trace.add(node.name, () => `lost the manager: ${reason}`),
        onResume: (id, reason) => this.trace.add(node.name, () => `resumes ${id}: ${reason}`),
      });
      this.clients.push({ node, client, isAlive: true });
    }
  }

  /** Starts another manager after {@linkcode killManager}: it takes over the running instances. */
  async restartManager(): Promise<void> {
    await this.#startManager();
    const survivors = this.aliveInstances.map(({ instanceId }) => instanceId);
    // With TCP addresses, a manager does not know which instances run.
    const seen = this.scenario.seed % 2 === 0 ? survivors : null;
    await this.#manager?.recoverInstances(seen).catch(() => {}); // the manager may be killed meanwhile
  }

  killManager(): void {
    if (this.#managerNode === null) return;
    this.network.kill(MANAGER_NODE);
    this.#managerNode = null;
    this.#manager = null;
  }

  killInstance(sim: SimInstance): void {
    this.#exit(sim, { code: null, signal: "SIGKILL" });
  }

  /** Lets the manager, if one runs, drain and stop an instance. */
  remove(sim: SimInstance): void {
    if (this.#manager === null) return;
    sim.isBeingRemoved = true;
    this.#manager.removeInstance(sim.instanceId).catch(() => {}); // the instance may be lost meanwhile
  }

  killClient(sim: SimClient): void {
    if (!sim.isAlive) return;
    sim.isAlive = false;
    this.network.kill(sim.node.name);
  }

  /** Calls `happen` with sender and receiver when the `count`-th such message from now is handled. */
  onMessage(method: string, count: number, happen: AwaitedMessage["happen"]): void {
    this.#awaited.push({ name: `"${method}"`, count, happen });
  }

  /** Stops clients, manager and instances in order. */
  async stop(): Promise<void> {
    await Promise.all(this.aliveClients.map(({ client }) => client.close()));
    await this.#manager?.stop();
  }

  async #startManager(): Promise<void> {
    const node = this.network.addNode(MANAGER_NODE, this.#skewMs());
    this.#managerNode = node;
    const { group } = this.scenario;
    const secret = `group of manager ${this.#numManagers}`;
    this.groupWatch?.begin(secret, this.elapsedMs);
    const manager = await Manager.listen({
      bus: node.bus,
      addresses: [MANAGER_ADDRESS],
      options: this.scenario.manager,
      migration: this.scenario.migration,
      migrationGroup: group ? { secret, initTimeoutMs: group.initTimeoutMs } : undefined,
      scaling: this.scenario.scaling,
      launcher: {
        launch: (request) => this.#launch(request, node),
        adopt: ({ pid }) => {
          const sim = this.instances[pid - 1];
          return { stop: () => this.killInstance(sim), hasEnded: () => !sim.isAlive };
        },
        killOrphan: (instanceId) => {
          const sim = this.aliveInstances.find((one) => one.instanceId === instanceId);
          if (sim) this.killInstance(sim);
          return sim !== undefined;
        },
      },
      clock: node.clock,
      instanceTimeoutMs: this.scenario.timeouts.instanceMs,
      drainTimeoutMs: this.scenario.timeouts.drainMs,
      seed: this.scenario.seed + this.#numManagers++,
      onEvent: (event) => {
        if (this.#managerNode === node) this.#onEvent(event); // a killed manager may settle promises
      },
    });
    if (this.#managerNode === node) this.#manager = manager;
  }

  #makeGroups(): SimGroups | null {
    const { group } = this.scenario;
    if (group === null) return null;
    return new SimGroups(this.network, { ...group, untilMs: START_MS + FAULTS_END_MS });
  }

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async #launch(request: LaunchRequest, parent: SimNode): Promise<LaunchedInstance> {
    const pid = this.instances.length + 1;
    const isTaken = this.instances.some(({ name }) => name === request.instanceId);
    const name = isTaken ? `${request.instanceId}/${pid}` : request.instanceId;
    const node = this.network.addNode(name, this.#skewMs());
    const { scenario, random } = this;
    const { fabric } = this;
    const onDeath = () => {
      this.trace.add(name, () => "computes a poison request");
      if (scenario.poisonSteps === "throw") throw new LlumnixError("internal", "a poison request");
      if (scenario.poisonSteps === "crash") this.killInstance(sim);
    };
    const sim = new SimInstance({ scenario, request, node, random, pid, fabric, onDeath });
    this.instances.push(sim);
    node.clock.after(LAUNCH_MS * random.exponential(), () => this.#run(sim));
    return {
      pid,
      // A parent learns of the end after a moment, and only if it still runs.
      exited: new Promise((resolve) => {
        sim.exited.then((status) => {
          parent.clock.after(random.exponential(), () => resolve(status));
        });
      }),
      stop: (signal) => {
        if (signal === "SIGKILL") this.killInstance(sim);
        else if (sim.isAlive) node.clock.soon(() => sim.instance.drain("got SIGTERM"));
      },
    };
  }

  async #run(sim: SimInstance): Promise<void> {
    const { reason, error, exitCode } = await sim.instance.run();
    this.trace.add(sim.name, () => `stops: ${reason}`);
    if (error !== undefined && !(error instanceof LlumnixError)) {
      this.#onViolation(`${sim.name} failed: ${error instanceof Error ? error.stack : error}`);
    }
    await sim.instance.close();
    this.#exit(sim, { code: exitCode, signal: null });
  }

  #exit(sim: SimInstance, status: ExitStatus): void {
    if (!sim.isAlive) return;
    this.trace.add(sim.name, () => `exits: ${JSON.stringify(status)}`);
    this.network.kill(sim.name);
    this.fabric.close(sim.name);
    sim.noteExit(status);
  }

  #onEvent(event: ManagerEvent): void {
    this.trace.add(MANAGER_NODE, () => JSON.stringify(event));
    if (event.type === "migrated") this.reports.push(event.report);
    if (event.type === "lost") this.numLost++;
    if (event.type === "group_formed") {
      this.groupWatch?.noteFormed(event, this.servingIds, this.elapsedMs);
    }
  }

  #skewMs(): number {
    return this.scenario.maxClockSkewMs * (2 * this.random.uniform() - 1);
  }

  #onFrame(from: string, to: string, text: string): void {
    this.trace.add(`${from} > ${to}`, () => describeFrame(text));
    if (this.#awaited.length > 0) this.#notice(from, to, text);
    if (this.groupWatch && from === MANAGER_NODE) {
      this.#forEachCall("migrate_out", to, text, (order, { instanceId }) => {
        this.groupWatch!.noteOrder(instanceId, order as MigrateOutOrder, this.elapsedMs);
      });
    }
    this.#forEachCall("migrate_commit", to, text, (commit, sim) => {
      this.#commitWatch.noteCommit(commit as MigrateCommitRequest, sim);
    });
  }

  /** Calls `note` for each call of one method in a frame to an instance. */
  #forEachCall(
    method: string,
    to: string,
    text: string,
    note: (data: unknown, sim: SimInstance) => void,
  ): void {
    if (!text.includes(`"${method}"`)) return;
    const sim = this.instances.find(({ name }) => name === to)!;
    for (const [, , called, data] of recordsOf(text)) if (called === method) note(data, sim);
  }

  /** @param text contains the name of the method */
  #notice(from: string, to: string, text: string): void {
    for (const awaited of this.#awaited) {
      if (awaited.count === 0 || !text.includes(awaited.name) || --awaited.count > 0) continue;
      // After the receiver has handled it: the answer is at best under way.
      this.clock.soon(() => awaited.happen(from, to));
    }
  }
}
