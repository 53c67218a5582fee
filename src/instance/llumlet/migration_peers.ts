import type { Address, Bus, Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";

/** Connections that were not used for this long are closed. Longer than a migration takes. */
const IDLE_MS = 60_000;

interface Link {
  readonly connecting: Promise<Peer>;
  cancelIdle: () => void;
}

/** Connections to other instances: opened when first needed, reused, and closed when idle. */
export class MigrationPeers {
  readonly #bus: Bus;
  readonly #clock: Clock;
  readonly #onClose: (peer: Peer) => void;
  readonly #links = new Map<Address, Link>();

  /** @param onClose called when a connection has ended */
  constructor(bus: Bus, clock: Clock, onClose: (peer: Peer) => void) {
    this.#bus = bus;
    this.#clock = clock;
    this.#onClose = onClose;
  }

  /**
   * Returns a connection to the instance at an address.
   * @throws {UnavailableError} no instance answers there
   */
  async open(address: Address, timeoutMs: number): Promise<Peer> {
    let link = this.#links.get(address);
    if (link) link.cancelIdle();
    else {
      const service = { onClose: (peer: Peer) => this.#lose(address, link!, peer) };
      const connecting = this.#bus.connect(address, service, { timeoutMs });
      link = { connecting, cancelIdle: () => {} };
      this.#links.set(address, link);
      connecting.catch(() => this.#forget(address, link!));
    }
    const used = link;
    used.cancelIdle = this.#clock.after(IDLE_MS, () => this.#close(address, used));
    const peer = await used.connecting;
    if (peer.isOpen) return peer;
    this.#forget(address, used);
    return this.open(address, timeoutMs);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#links].map(([address, link]) => this.#close(address, link)));
  }

  async #close(address: Address, link: Link): Promise<void> {
    this.#forget(address, link);
    await link.connecting.then((peer) => peer.close(), () => {});
  }

  #lose(address: Address, link: Link, peer: Peer): void {
    this.#forget(address, link);
    this.#onClose(peer);
  }

  #forget(address: Address, link: Link): void {
    link.cancelIdle();
    if (this.#links.get(address) === link) this.#links.delete(address);
  }
}
