import { CALLS_PER_LEASE } from "../../cluster/leadership/candidate.ts";
import { Random } from "../../core/random.ts";
import { VirtualClock } from "../clock/virtual_clock.ts";
import { SimNetwork, type SimNode } from "../network/sim_bus.ts";
import { noStoreFaults, SimStore, STORE_NODE } from "../store/sim_store.ts";
import { LeadershipChecks } from "./checks.ts";
import { type Plant, plantedStore } from "./plants.ts";
import { DECISION_INTERVAL_MS, type Observer, SimManager, SimReceiver } from "./processes.ts";
import {
  END_MS,
  FAULTS_END_MS,
  type LeadershipAction,
  type LeadershipScenario,
  type Target,
} from "./scenario.ts";

const KEEP_ALIVE_MS = 1_000;
/** A receiver that obeys has heard its leader this lately: some decisions and a delay. */
const HEARD_LATELY_MS = 5 * DECISION_INTERVAL_MS;
/** Its own, so that the scenario's random numbers are not the network's. */
const NETWORK_SEED = 2 ** 40;

export interface LeadershipRun {
  readonly violations: readonly string[];
  /** Leaderships that began. */
  readonly numLeaderships: number;
  readonly longestGapMs: number;
  /** Everything that happened, if asked for. */
  readonly trace: string;
}

/** Runs production candidates, fences and store views through a scenario. */
export async function runLeadershipScenario(
  scenario: LeadershipScenario,
  options: { readonly plant?: Plant | null; readonly isTraced?: boolean } = {},
): Promise<LeadershipRun> {
  const world = new World(scenario, options.plant ?? null, options.isTraced ?? false);
  return await world.run();
}

class World {
  readonly #clock = new VirtualClock();
  readonly #network: SimNetwork;
  readonly #store: SimStore;
  readonly #checks: LeadershipChecks;
  readonly #managers: (SimManager | null)[] = [];
  readonly #receivers: SimReceiver[] = [];
  /** How many processes each manager's host has had. */
  readonly #incarnations: number[] = [];
  readonly #lines: string[] = [];

  constructor(
    private readonly scenario: LeadershipScenario,
    private readonly plant: Plant | null,
    private readonly isTraced: boolean,
  ) {
    const { seed, meanDelayMs, storeFaults } = scenario;
    const random = new Random(NETWORK_SEED + seed);
    const clock = this.#clock;
    this.#network = new SimNetwork({ clock, random, meanDelayMs, keepAliveMs: KEEP_ALIVE_MS });
    this.#store = new SimStore(this.#network, storeFaults);
    this.#checks = new LeadershipChecks(scenario, () => this.#clock.nowMs());
  }

  async run(): Promise<LeadershipRun> {
    const { numManagers, numReceivers, actions } = this.scenario;
    const names = Array.from({ length: numManagers }, (_, i) => `manager ${i}`);
    for (let i = 0; i < numManagers; i++) this.#startManager(i);
    for (let i = 0; i < numReceivers; i++) this.#startReceiver(`receiver ${i}`, names);
    for (const action of actions) this.#clock.after(action.atMs, () => this.#begin(action));
    this.#clock.after(FAULTS_END_MS, () => this.#store.faults = noStoreFaults);
    await this.#clock.runUntil(() => this.#clock.nowMs() >= END_MS);
    this.#checkEnd();
    const { violations, leaderships, longestGapMs } = this.#checks;
    const trace = this.#lines.join("\n");
    return { violations, numLeaderships: leaderships.length, longestGapMs, trace };
  }

  #startManager(index: number): void {
    const { leaseMs } = this.scenario;
    const node = this.#network.addNode(`manager ${index}`, this.#network.random.below(1_000));
    const incarnation = this.#incarnations[index] = (this.#incarnations[index] ?? 0) + 1;
    const manager = new SimManager(
      node,
      this.#connectStore(node),
      leaseMs,
      incarnation,
      this.plant,
      this.#observer(),
    );
    this.#managers[index] = manager;
    manager.listen();
  }

  #startReceiver(name: string, managers: readonly string[]): void {
    const node = this.#network.addNode(name);
    const { leaseMs } = this.scenario;
    const store = this.#connectStore(node);
    this.#receivers.push(
      new SimReceiver(node, store, leaseMs, managers, this.plant, this.#observer()),
    );
  }

  #connectStore(node: SimNode) {
    const timeoutMs = this.scenario.leaseMs / CALLS_PER_LEASE;
    return plantedStore(this.#store.connect(node, timeoutMs), this.plant);
  }

  #observer(): Observer {
    const checks = this.#checks;
    if (!this.isTraced) return checks;
    const note = (line: string) => this.#note(line);
    return {
      leads: (leadership) => {
        note(`${leadership.leader} leads in epoch ${leadership.epoch}`);
        checks.leads(leadership);
      },
      follows: (id, reason) => note(`${id} follows: ${reason}`),
      decides: (id, leadership) => checks.decides(id, leadership),
      superseded: (id, known) => {
        note(`${id} is told of ${known.leader} (epoch ${known.epoch})`);
        checks.superseded(id, known);
      },
      obeys: (receiver, leadership) => checks.obeys(receiver, leadership),
    };
  }

  #note(line: string): void {
    if (this.isTraced) this.#lines.push(`${this.#clock.nowMs().toFixed().padStart(6)} ${line}`);
  }

  /** Index of a manager; null: the target is none, or nobody leads. */
  #managerOf(target: Target): number | null {
    if (target === "leader") {
      const leading = this.#managers
        .map((manager, index) => ({ index, epoch: manager?.candidate.leadership?.epoch ?? 0 }))
        .sort((a, b) => b.epoch - a.epoch)[0];
      return leading.epoch > 0 ? leading.index : null;
    }
    return target.startsWith("manager ") ? Number(target.slice("manager ".length)) : null;
  }

  /** Name of a node; null: nobody leads. */
  #nodeOf(target: Target): string | null {
    if (target === "store") return STORE_NODE;
    if (target.startsWith("receiver ")) return target;
    const index = this.#managerOf(target);
    return index === null ? null : `manager ${index}`;
  }

  #begin(action: LeadershipAction): void {
    this.#note(`-- ${JSON.stringify(action)}`);
    const after = (forMs: number, end: () => void) =>
      this.#clock.after(forMs, () => {
        this.#note(`-- end of ${action.type}`);
        end();
      });
    switch (action.type) {
      case "stop_store":
        this.#store.stop();
        return void after(action.forMs, () => this.#store.start());
      case "silence_store":
        this.#store.silence();
        return void after(action.forMs, () => this.#store.start());
      case "restore_store":
        return this.#store.restore(action.agoMs);
      case "hang_watches":
        return this.#store.hangWatches();
      case "compact_store":
        return this.#store.compact();
      case "cut":
        return this.#cut(action, after);
      case "kill":
      case "close":
        return this.#end(action, after);
      case "pause":
      case "step_clock":
        return this.#disturb(action, after);
    }
  }

  #cut(
    { from, to, isOneWay, forMs }: LeadershipAction & { type: "cut" },
    after: (forMs: number, end: () => void) => void,
  ): void {
    const nodes = (targets: readonly Target[]) => targets.flatMap((one) => this.#nodeOf(one) ?? []);
    const pairs = nodes(from).flatMap((a) => nodes(to).map((b) => [a, b] as const))
      .filter(([a, b]) => a !== b);
    for (const [a, b] of pairs) {
      this.#network.block(a, b);
      if (!isOneWay) this.#network.block(b, a);
    }
    after(forMs, () => {
      for (const [a, b] of pairs) {
        this.#network.heal(a, b);
        if (!isOneWay) this.#network.heal(b, a);
      }
    });
  }

  /** A manager's process ends, at once or in order, and starts again later. */
  #end(
    { type, target, forMs }: LeadershipAction & { type: "kill" | "close" },
    after: (forMs: number, end: () => void) => void,
  ): void {
    const index = this.#managerOf(target);
    const manager = index === null ? null : this.#managers[index];
    if (index === null || !manager) return;
    this.#managers[index] = null;
    let isAlive = true;
    const kill = () => {
      if (isAlive) this.#network.kill(manager.node.name);
      isAlive = false;
    };
    if (type === "kill") kill();
    else manager.close().then(kill);
    after(forMs + this.scenario.leaseMs, () => {
      kill(); // one that hangs does not end in order
      this.#startManager(index);
    });
  }

  #disturb(
    action: LeadershipAction & { type: "pause" | "step_clock" },
    after: (forMs: number, end: () => void) => void,
  ): void {
    const index = this.#managerOf(action.target);
    const manager = index === null ? null : this.#managers[index];
    if (!manager) return;
    if (action.type === "step_clock") return manager.node.clock.step(action.byMs);
    const { name } = manager.node;
    this.#network.pause(name);
    after(action.forMs, () => {
      if (this.#managers[index!] === manager) this.#network.resume(name);
    });
  }

  #checkEnd(): void {
    const leaders = this.#managers.flatMap((manager) => manager?.candidate.leadership ?? []);
    this.#checks.checkEnd(leaders);
    if (leaders.length !== 1) return;
    const [{ leader, epoch }] = leaders;
    const address = this.#managers.find((one) => one?.id === leader)!.candidate.record?.address;
    for (const receiver of this.#receivers) {
      const { node: { name, clock }, fence: { known }, finder, obeyedMs } = receiver;
      if (finder.address !== address) {
        this.#checks.fail(`the store tells ${name} that the leader is at ${finder.address}`);
      }
      if (clock.nowMs() - obeyedMs > HEARD_LATELY_MS || known?.epoch !== epoch) {
        this.#checks.fail(`${name} does not obey ${leader} of epoch ${epoch} at the end`);
      }
    }
  }
}
