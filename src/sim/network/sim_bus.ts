import { parseAddress } from "../../bus/address.ts";
import {
  type Address,
  type Bus,
  type BusLimits,
  type CallOptions,
  defaultBusLimits,
  type Listener,
  type Peer,
  type Service,
} from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import { NobodyListensError, UnavailableError } from "../../core/errors.ts";
import type { Random } from "../../core/random.ts";
import { NodeClock } from "../clock/node_clock.ts";
import { Connection, type SimPeer } from "./sim_connection.ts";

const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** Wait before an unanswered SYN is first repeated (RFC 6298); doubled each time. */
const CONNECT_RETRY_MS = 1_000;

export interface NetworkConfig {
  readonly clock: Clock;
  readonly random: Random;
  /** Mean delay of a message: half of it is fixed, the other half exponentially distributed. */
  readonly meanDelayMs: number;
  /** How long a connection stays open while no message gets through (TCP keep-alive). */
  readonly keepAliveMs: number;
  /** Share of the frames that arrive a second time, later; default 0. */
  readonly repeatChance?: number;
  /** Share of the frames that arrive after frames sent later; default 0. */
  readonly overtakeChance?: number;
  readonly limits?: BusLimits;
  /** Called as a frame reaches its end, before it is handled there. */
  readonly onFrame?: (from: string, to: string, text: string) => void;
}

/** A simulated process as the network sees it. */
export interface SimNode {
  readonly name: string;
  readonly clock: NodeClock;
  readonly bus: Bus;
}

/**
 * The network of a simulated cluster, which fails as a real one does. A connection has a stream in
 * each direction. A stream may break and lose the messages under way, be slow, stall, or stay open at
 * one end only. Frames may also be repeated and overtake each other, which the contract of
 * {@linkcode Bus} does not allow: so the fuzzer finds protocols that are not idempotent.
 */
export class SimNetwork {
  readonly limits: BusLimits;
  readonly #config: NetworkConfig;
  readonly #nodes = new Map<string, NodeClock>();
  readonly #listeners = new Map<Address, SimListener>();
  readonly #connections = new Set<Connection>();
  /** Directions "from>to" in which nothing gets through. */
  readonly #blocked = new Set<string>();
  /** Factors on the delay of a direction. */
  readonly #slowness = new Map<string, number>();

  constructor(config: NetworkConfig) {
    this.#config = config;
    this.limits = config.limits ?? defaultBusLimits;
  }

  /** Adds a process. */
  addNode(name: string, skewMs = 0): SimNode {
    if (this.#nodes.has(name)) throw new Error(`a node named ${name} exists already`);
    const clock = new NodeClock(this.#config.clock, skewMs);
    this.#nodes.set(name, clock);
    const bus: Bus = {
      listen: (address, service) => this.#listen(name, address, service),
      connect: (address, service, options) => this.#connect(name, address, service, options),
    };
    return { name, clock, bus };
  }

  /** The process ends without notice. Part of what it had sent may arrive; its connections break. */
  kill(name: string): void {
    this.#clockOf(name).kill();
    for (const [address, listener] of this.#listeners) {
      if (listener.node === name) this.#listeners.delete(address);
    }
    for (const connection of this.#connectionsOf(name)) {
      connection.breakFrom(name, `${name} was killed`);
    }
    this.#nodes.delete(name);
  }

  /** The process hangs, but its connections stay open. */
  pause(name: string): void {
    this.#clockOf(name).pause();
  }

  resume(name: string): void {
    this.#nodes.get(name)?.resume();
    this.#wakeAll();
  }

  /** No message gets from `from` to `to` until {@linkcode heal}. */
  block(from: string, to: string): void {
    this.#blocked.add(`${from}>${to}`);
    for (const connection of this.#connectionsOf(from, to)) connection.startKeepAlive();
  }

  heal(from: string, to: string): void {
    this.#blocked.delete(`${from}>${to}`);
    this.#wakeAll();
  }

  setSlowness(from: string, to: string, factor: number): void {
    this.#slowness.set(`${from}>${to}`, factor);
  }

  /** Breaks all connections of a node, or only those to `b`. The messages under way are lost. */
  breakConnections(a: string, b?: string): void {
    for (const connection of this.#connectionsOf(a, b)) connection.breakBoth("connection reset");
  }

  /** Connections that are open at either end. */
  get numConnections(): number {
    return this.#connections.size;
  }

  /** How many timers rang in the processes that are alive. */
  get numRings(): number {
    let rings = 0;
    for (const clock of this.#nodes.values()) rings += clock.numRings;
    return rings;
  }

  canPass(from: string, to: string): boolean {
    return this.#blocked.size === 0 || !this.#blocked.has(`${from}>${to}`);
  }

  isStopped(name: string): boolean {
    return this.#nodes.get(name)?.isStopped ?? true;
  }

  delayMs(from: string, to: string): number {
    const { meanDelayMs, random } = this.#config;
    const factor = this.#slowness.size === 0 ? 1 : this.#slowness.get(`${from}>${to}`) ?? 1;
    return factor * meanDelayMs * 0.5 * (1 + random.exponential());
  }

  get clock(): Clock {
    return this.#config.clock;
  }

  get random(): Random {
    return this.#config.random;
  }

  get config(): NetworkConfig {
    return this.#config;
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
  }

  unbind(listener: SimListener): void {
    if (this.#listeners.get(listener.address) === listener) {
      this.#listeners.delete(listener.address);
    }
  }

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async #listen(node: string, address: Address, service: Service): Promise<Listener> {
    parseAddress(address);
    if (this.#listeners.has(address)) throw new UnavailableError(`${address} is in use`);
    const listener = new SimListener(this, node, address, service);
    this.#listeners.set(address, listener);
    return listener;
  }

  /** Takes a round trip; retried while no message gets through. */
  #connect(
    from: string,
    address: Address,
    service: Service,
    options?: CallOptions,
  ): Promise<Peer> {
    const timeoutMs = options?.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
    const near = this.#clockOf(from);
    return new Promise((resolve, reject) => {
      parseAddress(address);
      let cancelTry = () => {};
      const fail = (error: UnavailableError) => {
        cancelTimeout();
        cancelTry();
        reject(error);
      };
      const cancelTimeout = near.after(timeoutMs, () => {
        const why = `no answer in ${timeoutMs} ms`;
        fail(new UnavailableError(`cannot connect to ${address}: ${why}`));
      });
      const tryOnce = (retryMs: number) => {
        const listener = this.#listeners.get(address);
        if (!listener) return fail(new NobodyListensError(`nobody listens at ${address}`));
        if (!this.#canConnect(from, listener.node)) {
          cancelTry = near.after(retryMs, () => tryOnce(2 * retryMs));
          return;
        }
        cancelTimeout();
        resolve(this.#open(from, near, listener, service));
      };
      const to = this.#listeners.get(address)?.node ?? "";
      near.after(this.delayMs(from, to) + this.delayMs(to, from), () => tryOnce(CONNECT_RETRY_MS));
    });
  }

  #canConnect(from: string, to: string): boolean {
    return this.canPass(from, to) && this.canPass(to, from) && !this.isStopped(to);
  }

  #open(from: string, near: NodeClock, listener: SimListener, service: Service): Peer {
    const connection = new Connection(
      this,
      { node: from, clock: near, service, remote: listener.address },
      {
        node: listener.node,
        clock: this.#clockOf(listener.node),
        service: listener.service,
        remote: `${from}#${listener.nextConnection()}`,
      },
    );
    this.#connections.add(connection);
    listener.adopt(connection.far);
    return connection.near;
  }

  #clockOf(name: string): NodeClock {
    const clock = this.#nodes.get(name);
    if (!clock) throw new Error(`there is no node named ${name}`);
    return clock;
  }

  #connectionsOf(a: string, b?: string): Connection[] {
    return [...this.#connections].filter((connection) =>
      connection.touches(a) && (b === undefined || connection.touches(b))
    );
  }

  #wakeAll(): void {
    for (const connection of this.#connections) connection.pump();
  }
}

class SimListener implements Listener {
  readonly #peers = new Set<SimPeer>();
  #connections = 0;

  constructor(
    private readonly network: SimNetwork,
    readonly node: string,
    readonly address: Address,
    readonly service: Service,
  ) {}

  nextConnection(): number {
    return ++this.#connections;
  }

  adopt(peer: SimPeer): void {
    this.#peers.add(peer);
    peer.closed.then(() => this.#peers.delete(peer));
    this.service.onConnect?.(peer);
  }

  async close(): Promise<void> {
    this.network.unbind(this);
    await Promise.all([...this.#peers].map((peer) => peer.close()));
  }
}
