import type { Clock } from "../../core/clock.ts";
import { LlumnixError, RequestError } from "../../core/errors.ts";
import type { HostStatus } from "../../core/protocol/admin.ts";
import type { HostDrainNote } from "../../core/protocol/standing_orders.ts";
import type { InstanceKeeper } from "./instance_keeper.ts";
import type { ManagedInstance } from "./managed_instance.ts";

export interface HostsConfig {
  readonly clock: Clock;
  /** All instances, starting and draining ones too. */
  readonly instances: () => readonly ManagedInstance[];
  /** Names of hosts that can start instances, and may have none yet. */
  readonly withAgents: () => readonly string[];
  readonly keeper: Pick<InstanceKeeper, "drain" | "keep" | "noteRoom">;
  /** {@linkcode Hosts.notes} have changed. */
  readonly onOrder: () => void;
}

/** A host that an operator drains. The object tells this drain from a later one of the same host. */
interface HostDrain {
  /** Instances of the host that drain at the same time. */
  readonly atOnce: number;
  /** Instances that serve until it is their turn. */
  readonly waiting: ManagedInstance[];
  numDraining: number;
}

/**
 * The hosts of the instances, by name, and which of them an operator drains: their instances give all
 * requests away, and no new instance goes there.
 */
export class Hosts {
  readonly #config: HostsConfig;
  readonly #drains = new Map<string, HostDrain>();
  /** Hosts of which an operator of this manager has decided. */
  readonly #decided = new Set<string>();

  constructor(config: HostsConfig) {
    this.#config = config;
  }

  /** Hosts on which no instance should start. */
  get drained(): ReadonlySet<string> {
    return new Set(this.#drains.keys());
  }

  /** An operator drains this host; false for null, a host that is not known. */
  isDrained(hostName: string | null): boolean {
    return hostName !== null && this.#drains.has(hostName);
  }

  /**
   * Drains the instances of a host. Instances that come later drain too.
   * @param atOnce how many instances drain at the same time: the others serve on until it is their turn
   * @returns true once no instance there has a request; false if the host was kept before
   * @throws {LlumnixError} there is no such host
   * @throws {RequestError} `atOnce` is no positive number
   */
  async drain(hostName: string, atOnce = Infinity): Promise<boolean> {
    this.#check(hostName);
    if (!(atOnce >= 1)) throw new RequestError(`at_once ${atOnce}: expected 1 or more`, "at_once");
    this.#decided.add(hostName);
    return await this.#begin(hostName, atOnce);
  }

  /** The drains, for the next manager. */
  get notes(): HostDrainNote[] {
    return [...this.#drains].map(([hostName, { atOnce }]) => ({
      hostName,
      atOnce: atOnce === Infinity ? null : atOnce,
    }));
  }

  /** Goes on with the drains of an earlier manager, except for hosts of which an operator has decided here. */
  adopt(notes: readonly HostDrainNote[]): void {
    const names = new Set(notes.map(({ hostName }) => hostName));
    for (const hostName of [...this.#drains.keys()]) {
      if (!names.has(hostName) && !this.#decided.has(hostName)) this.#end(hostName);
    }
    for (const { hostName, atOnce } of notes) {
      if (this.#decided.has(hostName) || this.#drains.has(hostName)) continue;
      this.#begin(hostName, atOnce ?? Infinity);
    }
  }

  async #begin(hostName: string, atOnce: number): Promise<boolean> {
    const drain: HostDrain = { atOnce, waiting: [], numDraining: 0 };
    this.#drains.set(hostName, drain);
    this.#config.onOrder();
    this.#config.keeper.noteRoom(false);
    await this.#enqueue(hostName, drain, this.#instancesOf(hostName));
    return this.#drains.get(hostName) === drain;
  }

  /** Resolves when these are drained, as far as they were not waiting behind others. */
  async #enqueue(
    hostName: string,
    drain: HostDrain,
    instances: readonly ManagedInstance[],
  ): Promise<void> {
    drain.waiting.push(...instances);
    const drainNext = async (): Promise<void> => {
      for (let next = drain.waiting.shift(); next !== undefined; next = drain.waiting.shift()) {
        if (this.#drains.get(hostName) !== drain) return;
        await this.#drain(next);
      }
      drain.numDraining--;
    };
    const turns: Promise<void>[] = [];
    while (drain.numDraining < drain.atOnce && drain.waiting.length > 0) {
      drain.numDraining++;
      turns.push(drainNext()); // takes one at once
    }
    await Promise.all(turns);
  }

  /**
   * Ends the drain of a host: its instances take requests again.
   * @throws {LlumnixError} there is no such host
   */
  keep(hostName: string): void {
    this.#check(hostName);
    this.#decided.add(hostName);
    this.#end(hostName);
  }

  #end(hostName: string): void {
    this.#drains.delete(hostName);
    this.#config.onOrder();
    for (const { instanceId, isLost } of this.#instancesOf(hostName)) {
      if (!isLost) this.#config.keeper.keep(instanceId);
    }
    this.#config.keeper.noteRoom(true);
  }

  /** An instance serves for the first time. */
  noteServing(instance: ManagedInstance): void {
    const { hostName } = instance;
    const drain = hostName === null ? undefined : this.#drains.get(hostName);
    if (drain !== undefined) this.#enqueue(hostName!, drain, [instance]);
  }

  /** @throws {LlumnixError} there is no such host */
  statusOf(hostName: string): HostStatus {
    this.#check(hostName);
    return this.statuses().find((host) => host.hostName === hostName)!;
  }

  /** Hosts that have instances or an agent, or are drained, by name. */
  statuses(): HostStatus[] {
    return this.#names().map((hostName) => {
      const instances = this.#instancesOf(hostName);
      const sum = (of: (info: NonNullable<ManagedInstance["info"]>) => number) =>
        instances.reduce((total, { info }) => total + (info === null ? 0 : of(info)), 0);
      return {
        hostName,
        state: this.#stateOf(hostName, instances),
        instances: instances.length,
        availableInstances: instances.filter(({ isAvailable }) => isAvailable).length,
        runningRequests: sum((info) => info.runningRequests),
        waitingRequests: sum((info) => info.waitingRequests + info.killedRequests),
      };
    });
  }

  #stateOf(hostName: string, instances: readonly ManagedInstance[]): HostStatus["state"] {
    if (!this.isDrained(hostName)) return "serving";
    const nowMs = this.#config.clock.nowMs();
    const isEmpty = instances.every((one) => one.isDraining && one.isDrained(nowMs));
    return isEmpty ? "drained" : "draining";
  }

  /** Resolves when the instance is empty, kept or gone. */
  async #drain({ instanceId }: ManagedInstance): Promise<void> {
    await this.#config.keeper.drain(instanceId, "operator").catch(() => {}); // lost meanwhile
  }

  #instancesOf(hostName: string): ManagedInstance[] {
    return this.#config.instances().filter((one) => one.hostName === hostName && !one.isLost);
  }

  #names(): string[] {
    const names = new Set([...this.#drains.keys(), ...this.#config.withAgents()]);
    for (const { hostName } of this.#config.instances()) if (hostName !== null) names.add(hostName);
    return [...names].sort();
  }

  #check(hostName: string): void {
    const names = this.#names();
    if (names.includes(hostName)) return;
    throw new LlumnixError(
      "not_found",
      `there is no host "${hostName}"; the hosts are: ${names.join(", ") || "none"}`,
    );
  }
}
