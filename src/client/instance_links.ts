import type { Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UnavailableError } from "../core/errors.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceList } from "../core/protocol/membership.ts";
import { InstanceLink, type InstanceLinkConfig } from "./instance_link.ts";

/** Pause before a connection to an instance that serves is made again. */
const RECONNECT_MS = 500;

export interface InstanceLinksConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly frontendId: string;
  readonly onOutputs: InstanceLinkConfig["onOutputs"];
  /** Not while all are closed. */
  readonly onLost: InstanceLinkConfig["onLost"];
}

/**
 * An API server's connections to the instances that the manager knows. They are made as soon as an
 * instance is known, for one that takes a request over expects the API server to be there, and are
 * made again when they end.
 */
export class InstanceLinks {
  readonly #config: InstanceLinksConfig;
  /** Connections that are there or being made. */
  readonly #links = new Map<InstanceId, InstanceLink>();
  #list: InstanceList = { version: 0, instances: [], expectedInstances: 0 };
  /** Instances that somebody waits for. */
  readonly #awaited = new Map<InstanceId, PromiseWithResolvers<void>>();
  #cancelReconnect: (() => void) | null = null;
  #isClosed = false;

  constructor(config: InstanceLinksConfig) {
    this.#config = config;
  }

  /** What the manager said last. */
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
   * The choice without a manager, and so without migration: what is given to an instance stays. Null
   * when no connection is there.
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
   * @throws {UnavailableError} the instance is not known here yet, its connection has just ended, or all
   *   are closed
   */
  to(instanceId: InstanceId): InstanceLink {
    const link = this.#links.get(instanceId) ?? this.#connectTo(instanceId);
    if (link && !link.isLost) return link;
    if (!this.#isClosed) throw new UnavailableError(`${instanceId} is not known here yet`);
    throw new UnavailableError(`this API server closes: it connects to ${instanceId} no more`);
  }

  /** Resolves when an instance serves or has served, however briefly, after this was called. */
  async untilServing(instanceId: InstanceId): Promise<void> {
    if (this.#list.instances.some((one) => one.instanceId === instanceId)) return;
    const awaited = this.#awaited.get(instanceId) ?? Promise.withResolvers<void>();
    this.#awaited.set(instanceId, awaited);
    await awaited.promise;
  }

  /**
   * Connects to what is new, and leaves what the manager knew and does not know any more.
   * @param isFirst of a manager: it says nothing about what former lists had
   */
  update(list: InstanceList, isFirst: boolean): void {
    const former = isFirst ? [] : this.#list.instances;
    this.#list = list;
    for (const { instanceId } of list.instances) {
      this.#awaited.get(instanceId)?.resolve();
      this.#awaited.delete(instanceId);
    }
    const addresses = new Map(list.instances.map((one) => [one.instanceId, one.address]));
    for (const { instanceId } of former) {
      if (addresses.has(instanceId)) continue;
      const link = this.#links.get(instanceId);
      if (!link) continue;
      link.wasStopped = list.stopped?.includes(instanceId) === true;
      link.close(link.wasStopped ? "it was stopped" : "the manager has given it up");
    }
    for (const [instanceId, address] of addresses) {
      const link = this.#links.get(instanceId);
      if (link && link.registration.address !== address) link.close("it has moved");
    }
    this.#connectToAll();
  }

  /** Idempotent; none is made any more. */
  async close(reason: string): Promise<void> {
    this.#isClosed = true;
    this.#cancelReconnect?.();
    await Promise.all([...this.#links.values()].map((link) => link.close(reason)));
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
