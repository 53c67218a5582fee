import type { Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UnavailableError } from "../core/errors.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceList } from "../core/protocol/membership.ts";
import { InstanceLink, type InstanceLinkConfig } from "./instance_link.ts";

/** Pause before the client connects again to an instance that the manager still lists. */
const RECONNECT_MS = 500;
/** Instances join a manager that has just started, or leads now, within this time; others are out of its reach. */
const JOIN_MS = 5_000;

export interface InstanceLinksConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly frontendId: string;
  readonly onOutputs: InstanceLinkConfig["onOutputs"];
  /** Not called for links that {@linkcode InstanceLinks.close} closes. */
  readonly onLost: InstanceLinkConfig["onLost"];
}

/**
 * An API server's connections to the instances that the manager lists. The client connects to an
 * instance as soon as it is listed: an instance that takes over a request expects the API server to
 * be connected. A connection that ends is made again.
 */
export class InstanceLinks {
  readonly #config: InstanceLinksConfig;
  /** Links that are connected or being connected. */
  readonly #links = new Map<InstanceId, InstanceLink>();
  #list: InstanceList = { version: 0, instances: [], expectedInstances: 0 };
  /** Instances that a caller of {@linkcode untilServing} waits for. */
  readonly #awaited = new Map<InstanceId, PromiseWithResolvers<void>>();
  #cancelReconnect: (() => void) | null = null;
  /** Instances of a manager before, of which the present one has not said anything yet. */
  #unconfirmed = new Set<InstanceId>();
  #cancelCheck: () => void = () => {};
  #isClosed = false;

  constructor(config: InstanceLinksConfig) {
    this.#config = config;
  }

  /** The newest list of the manager. */
  get list(): InstanceList {
    return this.#list;
  }

  get all(): Iterable<InstanceLink> {
    return this.#links.values();
  }

  get connected(): InstanceLink[] {
    return [...this.#links.values()].filter((link) => link.isConnected);
  }

  /**
   * The instance with the fewest requests of this API server, null if none is connected. Used
   * without a manager: there is no migration then, so that decode instances come last.
   */
  leastUsed(): InstanceLink | null {
    const { connected } = this;
    const prefill = connected.filter((link) => link.registration.instanceType !== "decode");
    let least: InstanceLink | null = null;
    for (const link of prefill.length > 0 ? prefill : connected) {
      const difference = least === null ? -1 : link.requests.size - least.requests.size;
      const isFirst = difference === 0 && link.instanceId < least!.instanceId;
      if (difference < 0 || isFirst) least = link;
    }
    return least;
  }

  /**
   * The link to an instance.
   * @throws {UnavailableError} the manager has not listed the instance to this API server yet, its
   *   connection has just ended, or all links are closed
   */
  to(instanceId: InstanceId): InstanceLink {
    const link = this.#links.get(instanceId) ?? this.#connectTo(instanceId);
    if (link && !link.isLost) return link;
    if (!this.#isClosed) throw new UnavailableError(`${instanceId} is not known here yet`);
    throw new UnavailableError(`the API server is closing and does not connect to ${instanceId}`);
  }

  /** Resolves when an instance serves, or has served since this call, however briefly. */
  async untilServing(instanceId: InstanceId): Promise<void> {
    if (this.#list.instances.some((one) => one.instanceId === instanceId)) return;
    const awaited = this.#awaited.get(instanceId) ?? Promise.withResolvers<void>();
    this.#awaited.set(instanceId, awaited);
    await awaited.promise;
  }

  /**
   * Connects to new instances, and gives up those that the manager listed and does not list any
   * more.
   * @param isFirst the first list of a connection: it says nothing about earlier lists
   */
  update(list: InstanceList, isFirst: boolean): void {
    const former = isFirst ? [] : this.#list.instances;
    if (isFirst) this.#awaitConfirmation();
    this.#list = list;
    for (const { instanceId } of list.instances) {
      this.#unconfirmed.delete(instanceId);
      this.#awaited.get(instanceId)?.resolve();
      this.#awaited.delete(instanceId);
    }
    const addresses = new Map(list.instances.map((one) => [one.instanceId, one.address]));
    for (const { instanceId } of former) {
      if (addresses.has(instanceId)) continue;
      const link = this.#links.get(instanceId);
      if (!link) continue;
      link.wasStopped = list.stopped?.includes(instanceId) === true;
      link.close(link.wasStopped ? "it was stopped" : "the manager has removed it");
    }
    for (const [instanceId, address] of addresses) {
      const link = this.#links.get(instanceId);
      if (link && link.registration.address !== address) link.close("it has another address now");
    }
    this.#connectToAll();
  }

  /** The manager is lost: until there is another one, nobody knows better than the links themselves. */
  noteManagerLost(): void {
    this.#cancelCheck();
  }

  /** Closes all links; no link is made any more. Idempotent. */
  async close(reason: string): Promise<void> {
    this.#isClosed = true;
    this.#cancelCheck();
    this.#cancelReconnect?.();
    await Promise.all([...this.#links.values()].map((link) => link.close(reason)));
  }

  /**
   * Gives up the instances that do not join a manager in time. A host without power answers nothing, and no
   * connection to it ends: the requests there would wait for the audit.
   */
  #awaitConfirmation(): void {
    this.#cancelCheck();
    this.#unconfirmed = new Set(this.#links.keys());
    this.#cancelCheck = this.#config.clock.after(JOIN_MS, () => {
      for (const instanceId of this.#unconfirmed) {
        this.#links.get(instanceId)?.close("it has not joined the manager that is there now");
      }
    });
  }

  #connectToAll(): void {
    for (const { instanceId } of this.#list.instances) {
      if (!this.#links.has(instanceId)) this.#connectTo(instanceId);
    }
  }

  #connectTo(instanceId: InstanceId): InstanceLink | null {
    const registration = this.#list.instances.find((other) => other.instanceId === instanceId);
    if (!registration || this.#isClosed) return null;
    const { bus, clock, frontendId, onOutputs } = this.#config;
    const link = new InstanceLink({
      bus,
      clock,
      registration,
      frontendId,
      onOutputs,
      onLost: (link, reason) => this.#lose(link, reason),
    });
    this.#links.set(instanceId, link);
    return link;
  }

  #lose(link: InstanceLink, reason: string): void {
    const { instanceId } = link;
    if (this.#links.get(instanceId) === link) this.#links.delete(instanceId);
    if (this.#isClosed) return;
    const { clock, onLost } = this.#config;
    onLost(link, reason);
    this.#cancelReconnect ??= clock.after(RECONNECT_MS, () => {
      this.#cancelReconnect = null;
      this.#connectToAll();
    });
  }
}
