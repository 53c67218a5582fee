import type { Address, Bus, Peer, Service } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import type { LeaseStore } from "../store/lease_store.ts";
import { CANDIDATES, readReport } from "./hearing.ts";

/** Each manager is called this often in a period, so that one late message does not count. */
const CALLS_PER_PERIOD = 2;
/** Pause between two reads of the store. A manager that has just started is found that late. */
const PERIODS_PER_READ = 4;
/** More than any cluster has. */
const MAX_MANAGERS = 16;

export interface ManagerContactsConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly bus: Bus;
  /** See {@linkcode hearingPeriodMs}. */
  readonly periodMs: number;
  /** Called on each connection, twice in a period. If it rejects, the connection is made again. */
  readonly call: (manager: Peer, options: { readonly timeoutMs: number }) => Promise<unknown>;
  /** A connection is new. */
  readonly onOpen?: (manager: Peer) => void;
}

/**
 * A process's connections to every manager of the cluster, also to those that follow.
 *
 * Over them an instance says that it is there: so the network between instances and the leader can be
 * compared with that between instances and a follower, see {@linkcode Hearing}. And when a follower becomes
 * the leader, {@linkcode bus} has a connection to it already. A new one takes five round trips, any of
 * which may meet a lost packet.
 */
export class ManagerContacts {
  readonly #config: ManagerContactsConfig;
  /** By the manager's address. */
  readonly #contacts = new Map<Address, Contact>();
  #cancelCalls: () => void = () => {};
  #cancelRead: () => void = () => {};
  #isClosed = false;

  /** Begins at once. */
  constructor(config: ManagerContactsConfig) {
    this.#config = config;
    this.#read();
    this.#callAll();
  }

  /** Connects to a manager by the connection that is open already, if there is one; else as any bus does. */
  readonly bus: Bus = {
    listen: (...args) => this.#config.bus.listen(...args),
    connect: (address, service, options) => {
      const peer = this.#contacts.get(address)?.lend(service) ?? null;
      return peer === null
        ? this.#config.bus.connect(address, service, options)
        : Promise.resolve(peer);
    },
  };

  /** A manager of which the store's list may not tell yet: the one that leads. */
  meet(address: Address): void {
    if (this.#isClosed || this.#contacts.has(address)) return;
    const contact = new Contact(address, this.#config);
    this.#contacts.set(address, contact);
    contact.call();
  }

  /** Connections that {@linkcode bus} has given away stay open. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#cancelCalls();
    this.#cancelRead();
    for (const contact of this.#contacts.values()) contact.close();
    this.#contacts.clear();
  }

  #callAll(): void {
    const { clock, periodMs } = this.#config;
    this.#cancelCalls = clock.after(periodMs / CALLS_PER_PERIOD, () => this.#callAll());
    for (const contact of this.#contacts.values()) contact.call();
  }

  /** While the store is away, the managers of before count. */
  async #read(): Promise<void> {
    const { store, clock, periodMs } = this.#config;
    const list = await store.list(CANDIDATES).catch(() => null);
    if (this.#isClosed) return;
    if (list !== null) this.#follow(list.entries.map(({ value }) => readReport(value)?.address));
    this.#cancelRead = clock.after(PERIODS_PER_READ * periodMs, () => this.#read());
  }

  #follow(addresses: readonly (Address | undefined)[]): void {
    const present = new Set(addresses.filter((one) => one !== undefined).slice(0, MAX_MANAGERS));
    for (const [address, contact] of this.#contacts) {
      if (present.has(address)) continue;
      contact.close();
      this.#contacts.delete(address);
    }
    for (const address of present) this.meet(address);
  }
}

/** A connection, and what it offers to the manager: nothing, until somebody else uses it. */
interface Line {
  readonly peer: Peer;
  service: Service;
}

/** A connection to one manager, which is made again when it ends, gives no answer, or was given away. */
class Contact {
  readonly #address: Address;
  readonly #config: ManagerContactsConfig;
  #line: Line | null = null;
  #isBusy = false;
  #isClosed = false;

  constructor(address: Address, config: ManagerContactsConfig) {
    this.#address = address;
    this.#config = config;
  }

  close(): void {
    this.#isClosed = true;
    this.#drop(this.#line);
  }

  /** Gives the connection to a user with this service; null: there is none. */
  lend(service: Service): Peer | null {
    const line = this.#line;
    if (line === null || !line.peer.isOpen) return null;
    this.#line = null; // the next call makes another one
    line.service = service;
    return line.peer;
  }

  /** Never rejects. */
  async call(): Promise<void> {
    if (this.#isBusy || this.#isClosed) return;
    this.#isBusy = true;
    const { periodMs: timeoutMs } = this.#config;
    let line = this.#line;
    try {
      line ??= await this.#open(timeoutMs);
      await this.#config.call(line.peer, { timeoutMs });
    } catch {
      this.#drop(line); // the next call connects again
    }
    this.#isBusy = false;
  }

  async #open(timeoutMs: number): Promise<Line> {
    let line: Line | null = null;
    const peer = await this.#config.bus.connect(this.#address, {
      get calls() {
        return line?.service.calls;
      },
      get notifications() {
        return line?.service.notifications;
      },
      onClose: (peer, reason) => line?.service.onClose?.(peer, reason),
    }, { timeoutMs });
    line = { peer, service: {} };
    if (this.#isClosed) {
      peer.close();
      throw new Error("closed");
    }
    this.#line = line;
    this.#config.onOpen?.(peer);
    return line;
  }

  /** Unless somebody else uses it. */
  #drop(line: Line | null): void {
    if (line === null || this.#line !== line) return;
    this.#line = null;
    line.peer.close();
  }
}
