import type { LaunchRequest } from "../../manager/fleet/launcher.ts";
import type { Manager } from "../../manager/manager.ts";
import type { ManagerEvent } from "../../manager/manager_event.ts";
import type { SimHost } from "./sim_host.ts";
import type { HostsScenario } from "./scenario.ts";

/** An instance of a host that was cut is not held against a new leader for so long after the cut. */
const REJOIN_MS = 12_000;
/** An order to start may be on its way when a drain begins. */
const ORDER_MS = 1_000;
const MAX_VIOLATIONS = 10;

/** Knows what operators have ordered, and checks what must hold. */
export class HostsChecks {
  readonly violations: string[] = [];
  readonly #scenario: HostsScenario;
  readonly #hosts: readonly SimHost[];
  readonly #nowMs: () => number;
  readonly #launched = new Set<string>();
  /** Instances that a leader has given up. */
  readonly #givenUp = new Set<string>();
  /** Instances that have come back after that, or after their host was cut, and may have been replaced. */
  readonly #returned = new Set<string>();
  readonly drained = new Set<string>();
  readonly removed = new Set<string>();
  /** When the drain of a host began. */
  readonly drainedHosts = new Map<string, number>();
  /** Instances that were added, less those removed. */
  change = 0;
  /** Additions under way. */
  numAdding = 0;
  /** Orders that may have been lost with the leader that took them. */
  numVague = 0;

  constructor(scenario: HostsScenario, hosts: readonly SimHost[], nowMs: () => number) {
    this.#scenario = scenario;
    this.#hosts = hosts;
    this.#nowMs = nowMs;
  }

  fail(what: string): void {
    if (this.violations.length >= MAX_VIOLATIONS || this.violations.includes(what)) return;
    this.violations.push(`${this.#nowMs().toFixed()} ms: ${what}`);
  }

  /** Instances that there should be, with the share of each host that is not lost for good. */
  wanted(isShared: (host: SimHost) => boolean): number {
    const shares = this.#hosts.filter(isShared)
      .reduce((sum, { plan }) => sum + plan.initialInstances, 0);
    return Math.max(0, this.#scenario.initialInstances + shares + this.change);
  }

  onEvent(event: ManagerEvent): void {
    if (event.type === "lost" || event.type === "orphan_killed" || event.type === "stopped") {
      this.#givenUp.add(event.instanceId);
    }
    if (event.type !== "registered") return;
    const { instanceId, hostName } = event.registration;
    const cutMs = this.#hosts.find(({ name }) => name === hostName)?.cutUntilMs ?? -Infinity;
    const wasCut = this.#nowMs() >= cutMs && this.#nowMs() < cutMs + REJOIN_MS;
    if (this.#givenUp.has(instanceId) || wasCut) this.#returned.add(instanceId);
  }

  onLaunch(host: SimHost, { instanceId }: LaunchRequest): void {
    if (this.#launched.has(instanceId)) this.fail(`${instanceId} is started twice`);
    this.#launched.add(instanceId);
    if (host.alive.length >= host.plan.slots) {
      this.fail(
        `host ${host.name} starts ${instanceId}, and its ${host.plan.slots} slots are taken`,
      );
    }
    const drainedMs = this.drainedHosts.get(host.name) ?? Infinity;
    const mayBeUnderWay = this.#nowMs() - drainedMs < ORDER_MS + this.#scenario.launchMs;
    if (drainedMs < Infinity && !mayBeUnderWay && this.numVague === 0) {
      this.fail(`host ${host.name} starts ${instanceId} although it is drained`);
    }
    if (!this.#scenario.isScaled) this.#checkCount(instanceId);
  }

  /** An instance starts: with those that run, there are no more than there should be. */
  #checkCount(instanceId: string): void {
    const nowMs = this.#nowMs();
    const running = this.#hosts.filter(({ cutUntilMs, isStopping }) =>
      nowMs > cutUntilMs + REJOIN_MS && !isStopping
    ).flatMap(({ alive }) => alive.map(({ sim }) => sim.instanceId))
      .filter((id) => !this.#givenUp.has(id) && !this.removed.has(id));
    const wanted = this.wanted(() => true) + this.numAdding + this.numVague + this.#returned.size;
    if (running.length < wanted) return;
    this.fail(
      `${instanceId} is started although ${running.join(", ")} run, and ${wanted} are wanted`,
    );
  }

  /** All has been well for long. */
  checkEnd(manager: Manager): void {
    const registered = manager.instances().map(({ instanceId }) => instanceId).sort();
    const alive = this.#hosts.flatMap((host) => host.alive.map(({ sim }) => sim.instanceId)).sort();
    if (registered.join() !== alive.join()) {
      this.fail(`${alive.join(", ")} run, and ${registered.join(", ")} serve`);
    }
    for (const { name, agent, alive, isUp } of this.#hosts) {
      const known = agent?.instanceIds.sort().join(", ") ?? "";
      const run = alive.map(({ sim }) => sim.instanceId).sort().join(", ");
      if (isUp && known !== run) this.fail(`on ${name} run ${run}, and its agent knows ${known}`);
    }
    this.#checkDrains(manager);
    if (!this.#scenario.isScaled) this.#checkFinalCount(manager);
  }

  #checkDrains(manager: Manager): void {
    if (this.numVague > 0) return;
    const { instances, hosts } = manager.clusterState();
    const states = new Map(hosts.map(({ hostName, state }) => [hostName, state]));
    for (const { name, isUp, alive } of this.#hosts) {
      const isDrained = this.drainedHosts.has(name);
      const found = states.get(name);
      if (isDrained && found !== "drained") this.fail(`host ${name} is ${found}, and not drained`);
      if (!isDrained && isUp && found !== "serving") this.fail(`host ${name} is ${found}`);
      for (const { sim: { instanceId } } of alive) {
        if (this.removed.has(instanceId)) this.fail(`${instanceId} was removed, and runs`);
      }
    }
    for (const { instanceId, hostName, state } of instances) {
      if (this.#returned.has(instanceId)) continue; // its drain ended when it was given up
      const isDrained = this.drained.has(instanceId) || this.drainedHosts.has(hostName ?? "");
      const isFound = state === "drained" || state === "draining";
      if (isDrained !== isFound) this.fail(`${instanceId} is ${state}, drained: ${isDrained}`);
    }
  }

  #checkFinalCount(manager: Manager): void {
    const isShared = ({ isUp }: SimHost) => isUp;
    const wanted = this.wanted(isShared);
    const numLostShares = this.wanted(() => true) - wanted;
    const running = this.#hosts.reduce((sum, { alive }) => sum + alive.length, 0);
    const room = this.#hosts.filter(({ isUp }) => isUp).reduce((sum, host) => {
      const isDrained = this.drainedHosts.has(host.name);
      return sum + (isDrained ? host.alive.length : host.plan.slots);
    }, 0);
    const least = Math.min(wanted, room) - this.numVague;
    // A host that comes back to another leader may bring instances that were replaced.
    const most = wanted + this.numVague + this.#returned.size + numLostShares;
    if (running < least || running > most) {
      this.fail(`${running} instances run, expected ${least} to ${most}`);
    }
    const { numWanted } = manager;
    if (numWanted < wanted - this.numVague || numWanted > Math.max(wanted, running)) {
      this.fail(`the manager wants ${numWanted} instances, expected ${wanted}`);
    }
  }
}
