import type { Address, Bus, Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { LeaseStore } from "../store/lease_store.ts";
import { CANDIDATES, readReport } from "./hearing.ts";

/** An instance says that it is there this often in a lease, so that one late message does not count. */
const BEATS_PER_LEASE = 2;
/** Pause between two reads of the store. A manager that has just started is found that late. */
const LEASES_PER_READ = 4;
/** More than any cluster has. */
const MAX_MANAGERS = 16;

export interface BeaconConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly bus: Bus;
  readonly instanceId: InstanceId;
  readonly leaseMs: number;
}

/**
 * Tells every manager of the cluster that an instance is there, also managers that follow. So the network
 * between instances and the leader can be compared with that between instances and a follower: see
 * {@linkcode Hearing}.
 */
export class Beacon {
  readonly #config: BeaconConfig;
  /** By the manager's address. */
  readonly #contacts = new Map<Address, Contact>();
  #cancelBeat: () => void = () => {};
  #cancelRead: () => void = () => {};
  #isClosed = false;

  /** Begins at once. */
  constructor(config: BeaconConfig) {
    this.#config = config;
    this.#read();
    this.#beat();
  }

  /** A manager of which the store's list may not tell yet: the one that leads. */
  meet(address: Address): void {
    if (this.#isClosed || this.#contacts.has(address)) return;
    const contact = new Contact(address, this.#config);
    this.#contacts.set(address, contact);
    contact.beat();
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#cancelBeat();
    this.#cancelRead();
    for (const contact of this.#contacts.values()) contact.close();
    this.#contacts.clear();
  }

  #beat(): void {
    const { clock, leaseMs } = this.#config;
    this.#cancelBeat = clock.after(leaseMs / BEATS_PER_LEASE, () => this.#beat());
    for (const contact of this.#contacts.values()) contact.beat();
  }

  /** While the store is away, the managers of before count. */
  async #read(): Promise<void> {
    const { store, clock, leaseMs } = this.#config;
    const list = await store.list(CANDIDATES).catch(() => null);
    if (this.#isClosed) return;
    if (list !== null) this.#follow(list.entries.map(({ value }) => readReport(value)?.address));
    this.#cancelRead = clock.after(LEASES_PER_READ * leaseMs, () => this.#read());
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

/** A connection to one manager, which is made again when it ends or gives no answer. */
class Contact {
  readonly #address: Address;
  readonly #config: BeaconConfig;
  #peer: Peer | null = null;
  #isBusy = false;
  #isClosed = false;

  constructor(address: Address, config: BeaconConfig) {
    this.#address = address;
    this.#config = config;
  }

  close(): void {
    this.#isClosed = true;
    this.#peer?.close();
    this.#peer = null;
  }

  /** Never rejects. */
  async beat(): Promise<void> {
    if (this.#isBusy || this.#isClosed) return;
    this.#isBusy = true;
    const { bus, instanceId, leaseMs: timeoutMs } = this.#config;
    try {
      this.#peer ??= await bus.connect(this.#address, {}, { timeoutMs });
      await this.#peer.call("hear", { data: { instanceId } }, { timeoutMs });
    } catch {
      this.#peer?.close(); // the next beat connects again
      this.#peer = null;
    }
    if (this.#isClosed) this.#peer?.close();
    this.#isBusy = false;
  }
}
