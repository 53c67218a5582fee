import { NobodyListensError, UnavailableError } from "../core/errors.ts";
import { removeIfPresent } from "../core/files.ts";
import { parseAddress, tcpAddress } from "./address.ts";
import type { BasePeer } from "./base_peer.ts";
import {
  type Address,
  type Bus,
  type BusLimits,
  type CallOptions,
  defaultBusLimits,
  type Listener,
  type Peer,
  type Service,
} from "./bus.ts";
import { SocketPeer } from "./socket_peer.ts";

const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** Pause after a failed accept, such as one for want of file descriptors. */
const ACCEPT_RETRY_MS = 100;
const SOCKET_MODE = 0o600;

/** Connects processes of one host over Unix sockets, and hosts over TCP. */
export class SocketBus implements Bus {
  constructor(private readonly limits: BusLimits = defaultBusLimits) {}

  async listen(address: Address, service: Service): Promise<Listener> {
    const parsed = parseAddress(address);
    if (parsed.scheme === "tcp") {
      const listener = bind(
        address,
        () => Deno.listen({ hostname: parsed.host, port: parsed.port }),
      );
      const bound = tcpAddress(parsed.host, listener.addr.port);
      return new SocketListener(bound, listener, service, this.limits);
    }
    if (parsed.scheme !== "unix") throw unsupported(address);
    const { path } = parsed;
    if (await isStale(path)) Deno.removeSync(path);
    const listener = bind(address, () => Deno.listen({ transport: "unix", path }));
    Deno.chmodSync(path, SOCKET_MODE);
    return new SocketListener(address, listener, service, this.limits, path);
  }

  async connect(address: Address, service: Service, options?: CallOptions): Promise<Peer> {
    const timeoutMs = options?.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
    return new SocketPeer(await dial(address, timeoutMs), address, service, this.limits);
  }
}

class SocketListener implements Listener {
  #peers = new Set<BasePeer>();
  #connections = 0;
  #isOpen = true;
  #accepting: Promise<void>;

  constructor(
    readonly address: Address,
    private readonly listener: Deno.Listener,
    private readonly service: Service,
    private readonly limits: BusLimits,
    private readonly path?: string,
  ) {
    this.#accepting = this.#acceptLoop();
  }

  async close(): Promise<void> {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.listener.close();
      if (this.path) removeIfPresent(this.path);
    }
    await this.#accepting;
    await Promise.all([...this.#peers].map((peer) => peer.close()));
  }

  async #acceptLoop(): Promise<void> {
    while (this.#isOpen) {
      const conn = await this.listener.accept().catch(() => null);
      if (conn) this.#adopt(conn);
      else if (this.#isOpen) await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
    }
  }

  #adopt(conn: Deno.Conn): void {
    const name = `${this.address}#${++this.#connections}`;
    const peer = new SocketPeer(conn, name, this.service, this.limits);
    this.#peers.add(peer);
    peer.closed.then(() => this.#peers.delete(peer));
    this.service.onConnect?.(peer);
  }
}

function bind<T>(address: Address, listen: () => T): T {
  try {
    return listen();
  } catch (error) {
    const why = error instanceof Deno.errors.AddrInUse ? "it is in use" : (error as Error).message;
    throw new UnavailableError(`cannot listen at ${address}: ${why}`, { cause: error });
  }
}

/**
 * @throws {NobodyListensError} the connection is refused, or the socket's file is not there
 * @throws {UnavailableError} the time is over, or the host cannot be reached
 */
async function dial(address: Address, timeoutMs: number): Promise<Deno.Conn> {
  const parsed = parseAddress(address);
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
  try {
    if (parsed.scheme === "unix") {
      return await Deno.connect({ transport: "unix", path: parsed.path });
    }
    if (parsed.scheme === "tcp") {
      const { host: hostname, port } = parsed;
      return await Deno.connect({ hostname, port, signal: abort.signal });
    }
  } catch (error) {
    const message = `cannot connect to ${address}: ${(error as Error).message}`;
    if (isRefusal(error)) throw new NobodyListensError(message, { cause: error });
    throw new UnavailableError(message, { cause: error });
  } finally {
    clearTimeout(timer);
  }
  throw unsupported(address);
}

function isRefusal(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionRefused || error instanceof Deno.errors.NotFound;
}

/** True for the socket file of a listener that is gone; a dead process leaves its file behind. */
async function isStale(path: string): Promise<boolean> {
  try {
    if (!Deno.lstatSync(path).isSocket) return false;
    (await Deno.connect({ transport: "unix", path })).close();
    return false;
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused;
  }
}

function unsupported(address: Address): UnavailableError {
  return new UnavailableError(`the socket bus serves unix: and tcp: addresses, not ${address}`);
}
