import { setImmediate } from "node:timers";
import { NobodyListensError, UnavailableError } from "../core/errors.ts";
import { parseAddress } from "./address.ts";
import { BasePeer } from "./base_peer.ts";
import { type Address, type BusLimits, defaultBusLimits, type Listener } from "./bus.ts";
import { frameSize } from "./outbox.ts";
import type { AnyBus, AnyPeer, AnyService } from "./transport.ts";

/**
 * Connects roles of one process. Messages go through JSON as on any other bus, so that no two roles
 * ever share an object; they arrive in a later turn of the event loop.
 */
export class InProcessBus implements AnyBus {
  #listeners = new Map<string, InProcessListener>();

  constructor(private readonly limits: BusLimits = defaultBusLimits) {}

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async listen(address: Address, service: AnyService): Promise<Listener> {
    const name = nameOf(address);
    if (this.#listeners.has(name)) throw new UnavailableError(`${address} is in use`);
    const listener = new InProcessListener(address, service, this.limits, () => {
      this.#listeners.delete(name);
    });
    this.#listeners.set(name, listener);
    return listener;
  }

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async connect(address: Address, service: AnyService): Promise<AnyPeer> {
    const listener = this.#listeners.get(nameOf(address));
    if (!listener) throw new NobodyListensError(`nobody listens at ${address}`);
    return listener.accept(service);
  }
}

class InProcessListener implements Listener {
  #peers = new Set<AnyPeer>();
  #connections = 0;

  constructor(
    readonly address: Address,
    private readonly service: AnyService,
    private readonly limits: BusLimits,
    private readonly unbind: () => void,
  ) {}

  /** Returns the connecting end of a new connection. */
  accept(connectingService: AnyService): AnyPeer {
    const name = `${this.address}#${++this.#connections}`;
    const ours = new InProcessPeer(name, this.service, this.limits);
    const theirs = new InProcessPeer(this.address, connectingService, this.limits);
    ours.attach(theirs);
    theirs.attach(ours);
    this.#peers.add(ours);
    ours.closed.then(() => this.#peers.delete(ours));
    this.service.onConnect?.(ours);
    return theirs;
  }

  async close(): Promise<void> {
    this.unbind();
    await Promise.all([...this.#peers].map((peer) => peer.close()));
  }
}

class InProcessPeer extends BasePeer {
  #other!: InProcessPeer;

  override readonly pid = Deno.pid;
  attach(other: InProcessPeer): void {
    this.#other = other;
  }

  protected override wake(): void {
    setImmediate(() => this.#deliver());
  }

  protected override drain(): Promise<void> {
    return new Promise((resolve) =>
      setImmediate(() => {
        this.#deliver();
        this.#other.remoteEnded();
        resolve();
      })
    );
  }

  protected override abandon(): Promise<void> {
    return new Promise((resolve) =>
      setImmediate(() => {
        this.outbox.takeAll();
        this.#other.remoteEnded();
        resolve();
      })
    );
  }

  #deliver(): void {
    for (const frame of this.outbox.takeAll()) {
      this.outbox.release(frameSize(frame));
      this.#other.receive(`[${frame.text}]`, frame.payload);
    }
  }
}

function nameOf(address: Address): string {
  const parsed = parseAddress(address);
  if (parsed.scheme === "inproc") return parsed.name;
  throw new UnavailableError(`the in-process bus serves inproc:NAME, not ${address}`);
}
