import type { Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import {
  type HostDrainNote,
  type InstanceDrainOrder,
  isNewer,
  MAX_DRAINED_HOSTS,
  MAX_DRAINED_INSTANCES,
  type StandingOrders,
} from "../../core/protocol/standing_orders.ts";
import type { Authority } from "../authority.ts";
import type { ManagedInstance } from "./managed_instance.ts";

/** An instance that has not come by then is not awaited: its drain is forgotten. */
const REMEMBER_MS = 60_000;

export interface StandingOrderConfig {
  readonly clock: Clock;
  readonly authority: Authority;
  /** All instances. */
  readonly instances: () => readonly ManagedInstance[];
  /** The agents that are connected. */
  readonly agents: () => readonly Peer[];
  /** Instances that were added, less those removed, also by earlier managers. */
  readonly instanceChange: () => number;
  readonly hostDrains: () => readonly HostDrainNote[];
  /**
   * Newer orders of an earlier manager are there: they hold, unless an operator has decided otherwise here.
   * @param ended instances whose drain was taken from older ones, and is not in these
   */
  readonly onAdopt: (orders: StandingOrders, ended: ReadonlySet<InstanceId>) => void;
}

/**
 * Has the instances and agents keep what operators and scaling have ordered, and takes over what they keep
 * from an earlier manager.
 */
export class StandingOrderKeeper {
  readonly #config: StandingOrderConfig;
  readonly #startMs: number;
  /** The newest of an earlier manager. */
  #adopted: StandingOrders | undefined = undefined;
  /** What the instances and agents have, or get. */
  #latest: StandingOrders | undefined = undefined;
  /** Version of the first orders that this manager has sent. */
  #firstVersion = Infinity;
  /** Instances whose drain is what this manager says, whatever an earlier one said. */
  readonly #decided = new Set<InstanceId>();
  /** Those of them whose drain an earlier manager ordered, and of which no operator has decided here. */
  readonly #taken = new Set<InstanceId>();
  #isDue = false;

  constructor(config: StandingOrderConfig) {
    this.#config = config;
    this.#startMs = config.clock.nowMs();
  }

  /** An instance or an agent has joined, with what it keeps. */
  adopt(orders: StandingOrders | undefined): void {
    if (orders === undefined || !isNewer(orders, this.#adopted)) return;
    const epoch = this.#epoch;
    const isOwn = orders.epoch === epoch && (epoch > 0 || orders.version >= this.#firstVersion);
    if (isOwn || orders.epoch > epoch) return;
    this.#adopted = orders;
    if (this.#firstVersion === Infinity) this.#latest = orders;
    const ended = this.#taken.difference(new Set(orders.drains.map((one) => one.instanceId)));
    for (const instanceId of ended) {
      this.#taken.delete(instanceId);
      this.#decided.delete(instanceId);
    }
    this.#config.onAdopt(orders, ended);
    this.note();
  }

  /** The drain of an instance that an earlier manager ordered, once; null: none. */
  takeDrain(instanceId: InstanceId): InstanceDrainOrder | null {
    if (this.#decided.has(instanceId)) return null;
    const drain = this.#adopted?.drains.find((one) => one.instanceId === instanceId) ?? null;
    if (drain === null) return null;
    this.noteDecision(instanceId);
    this.#taken.add(instanceId);
    return drain;
  }

  /** An operator has decided whether an instance drains. */
  noteDecision(instanceId: InstanceId): void {
    this.#decided.add(instanceId);
    this.#taken.delete(instanceId);
    this.note();
  }

  /** The orders have changed: all instances and agents get them in a moment. */
  note(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    this.#config.clock.soon(() => {
      this.#isDue = false;
      this.#update();
    });
  }

  /** Gives the orders to an instance or an agent that has joined. */
  async tell(peer: Peer): Promise<void> {
    const decision = this.#config.authority.stamp;
    if (this.#latest === undefined || decision === null) return;
    // One of an older version knows no such call. One that is gone gets them when it is back.
    await peer.call("keep_orders", { data: { ...decision, orders: this.#latest } }).catch(() => {});
  }

  get #epoch(): number {
    return this.#config.authority.stamp?.leadership?.epoch ?? 0;
  }

  #update(): void {
    const { clock, instances, agents, instanceChange, hostDrains, authority } = this.#config;
    if (authority.stamp === null) return;
    const content = {
      instanceChange: instanceChange(),
      drains: this.#drains().slice(0, MAX_DRAINED_INSTANCES),
      hostDrains: hostDrains().slice(0, MAX_DRAINED_HOSTS),
    };
    const { epoch: _, version = 0, ...before } = this.#latest ??
      { epoch: 0, instanceChange: 0, drains: [], hostDrains: [] };
    if (JSON.stringify(before) === JSON.stringify(content)) return;
    const epoch = this.#epoch;
    // Without a cluster, the clock tells the orders of this manager from those of an earlier one.
    const leastVersion = epoch > 0 ? 1 : Math.floor(clock.nowMs());
    const orders = { epoch, version: Math.max(version + 1, leastVersion), ...content };
    this.#firstVersion = Math.min(this.#firstVersion, orders.version);
    this.#latest = orders;
    for (const { peer, isServing } of instances()) if (peer !== null && isServing) this.tell(peer);
    for (const peer of agents()) this.tell(peer);
  }

  /** Also of instances that have not joined yet: another manager may take over before they do. */
  #drains(): InstanceDrainOrder[] {
    const { clock, instances } = this.#config;
    const drains = instances().flatMap(({ instanceId, drain, isLost }) => {
      if (isLost || (drain?.by !== "operator" && drain?.by !== "scaling")) return [];
      return [{ instanceId, by: drain.by, isRemoval: drain.isRemoval }];
    });
    if (clock.nowMs() - this.#startMs > REMEMBER_MS) return drains;
    const present = new Set(instances().map(({ instanceId }) => instanceId));
    const awaited = (this.#adopted?.drains ?? []).filter(({ instanceId }) =>
      !this.#decided.has(instanceId) && !present.has(instanceId)
    );
    return [...drains, ...awaited];
  }
}
