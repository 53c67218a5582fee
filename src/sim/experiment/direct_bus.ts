import type { Address, CallOptions, Listener } from "../../bus/bus.ts";
import type { AnyBus, AnyMessage, AnyPeer, AnyService } from "../../bus/transport.ts";
import type { Clock } from "../../core/clock.ts";
import {
  fromErrorRecord,
  NobodyListensError,
  toErrorRecord,
  UnavailableError,
} from "../../core/errors.ts";

const DEFAULT_TIMEOUT_MS = 10_000;

export interface DirectNetworkConfig {
  readonly clock: Clock;
  /** Delay of a call or its answer, one way. */
  readonly delayMs: number;
  /** Promises have settled or are about to: code that awaits them must run before time advances. */
  readonly onSettled: () => void;
}

/**
 * A network for experiments, in which nothing fails and speed matters. Messages are handed over as
 * objects, not as JSON. A call takes time in both directions. A notification arrives at once, since
 * there are several in each engine step. Messages stay in order, as `Bus` demands.
 */
export class DirectNetwork {
  readonly #listeners = new Map<Address, DirectListener>();

  constructor(readonly config: DirectNetworkConfig) {}

  /** The network as one process sees it. */
  node(): DirectNode {
    return new DirectNode(this);
  }

  bind(listener: DirectListener): void {
    const { address } = listener;
    if (this.#listeners.has(address)) throw new UnavailableError(`${address} is in use`);
    this.#listeners.set(address, listener);
  }

  unbind(address: Address): void {
    this.#listeners.delete(address);
  }

  listenerAt(address: Address): DirectListener {
    const listener = this.#listeners.get(address);
    if (!listener) throw new NobodyListensError(`nobody listens at ${address}`);
    return listener;
  }
}

/** One process's end of the network. */
export class DirectNode implements AnyBus {
  /** Calls from and to this process that have no answer yet. */
  callsInFlight = 0;

  constructor(readonly network: DirectNetwork) {}

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async listen(address: Address, service: AnyService): Promise<Listener> {
    const listener = new DirectListener(address, service, this);
    this.network.bind(listener);
    return listener;
  }

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async connect(address: Address, service: AnyService): Promise<AnyPeer> {
    return this.network.listenerAt(address).accept(service, this);
  }
}

class DirectListener implements Listener {
  readonly #accepted: DirectPeer[] = [];

  constructor(
    readonly address: Address,
    private readonly service: AnyService,
    private readonly node: DirectNode,
  ) {}

  accept(service: AnyService, from: DirectNode): AnyPeer {
    const ours = new DirectPeer(`a client of ${this.address}`, this.service, this.node);
    const theirs = new DirectPeer(this.address, service, from);
    ours.other = theirs;
    theirs.other = ours;
    this.#accepted.push(ours);
    this.service.onConnect?.(ours);
    return theirs;
  }

  async close(): Promise<void> {
    this.node.network.unbind(this.address);
    await Promise.all(this.#accepted.map((peer) => peer.close()));
  }
}

/** A call that has no answer yet. */
interface PendingCall {
  readonly resolve: (answer: AnyMessage) => void;
  readonly reject: (error: Error) => void;
  readonly cancelTimeout: () => void;
}

class DirectPeer implements AnyPeer {
  other!: DirectPeer;
  readonly bufferedBytes = 0;
  readonly localHost = null;
  readonly pid = Deno.pid;
  isOpen = true;
  /** Messages on their way to the other end. */
  #numUnderWay = 0;
  readonly #pending = new Set<PendingCall>();

  constructor(
    readonly remote: string,
    private readonly service: AnyService,
    private readonly node: DirectNode,
  ) {}

  call(method: string, message: AnyMessage, options: CallOptions = {}): Promise<AnyMessage> {
    if (!this.isOpen) {
      const reason = `${method}: the connection to ${this.remote} is closed`;
      return Promise.reject(new UnavailableError(reason));
    }
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const { promise, resolve, reject } = Promise.withResolvers<AnyMessage>();
    const cancelTimeout = this.#config.clock.after(timeoutMs, () => {
      const reason = `${method}: no answer from ${this.remote} in ${timeoutMs} ms`;
      this.#settle(call, new UnavailableError(reason));
    });
    const call: PendingCall = { resolve, reject, cancelTimeout };
    this.#pending.add(call);
    this.#countCalls(1);
    this.#send(() => this.other.#answer(call, method, message));
    return promise;
  }

  notify(method: string, message: AnyMessage): void {
    if (!this.isOpen) return;
    const { other } = this;
    if (this.#numUnderWay > 0) this.#send(() => other.#receive(method, message));
    else other.#receive(method, message);
  }

  close(): Promise<void> {
    this.#end("closed by this end");
    this.other.#end("closed by the other end");
    return Promise.resolve();
  }

  get #config(): DirectNetworkConfig {
    return this.node.network.config;
  }

  #send(arrive: () => void): void {
    this.#numUnderWay++;
    this.#config.clock.after(this.#config.delayMs, () => {
      this.#numUnderWay--;
      if (this.isOpen) arrive();
    });
  }

  /** Answers a call of the other end. */
  #answer(call: PendingCall, method: string, message: AnyMessage): void {
    const answer = (result: AnyMessage) => this.#send(() => this.other.#settle(call, result));
    const refuse = (error: unknown) => {
      const record = toErrorRecord(error);
      this.#send(() => this.other.#settle(call, fromErrorRecord(record)));
    };
    try {
      const result = this.#handle(method, message);
      if (!(result instanceof Promise)) return answer(result);
      result.then(answer, refuse);
      this.#config.onSettled(); // the promise that the handler awaits may be settled already
    } catch (error) {
      refuse(error);
    }
  }

  #settle(call: PendingCall, outcome: AnyMessage | Error): void {
    if (!this.#pending.delete(call)) return;
    call.cancelTimeout();
    this.#countCalls(-1);
    if (outcome instanceof Error) call.reject(outcome);
    else call.resolve(outcome);
    this.#config.onSettled();
  }

  #countCalls(change: 1 | -1): void {
    this.node.callsInFlight += change;
    this.other.node.callsInFlight += change;
  }

  #handle(method: string, message: AnyMessage): Promise<AnyMessage> | AnyMessage {
    const handler = this.service.calls?.[method];
    if (!handler) throw new UnavailableError(`there is no call "${method}" here`);
    return handler(message, this);
  }

  #receive(method: string, message: AnyMessage): void {
    this.service.notifications?.[method]?.(message, this);
  }

  #end(reason: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    for (const call of [...this.#pending]) {
      this.#settle(call, new UnavailableError(`the connection to ${this.remote} is ${reason}`));
    }
    this.service.onClose?.(this, reason);
    this.#config.onSettled();
  }
}
