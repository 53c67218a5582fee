import { dirname } from "node:path";
import { sendAtOnceFrom } from "../../ffi/tcp_no_delay.ts";
import { LlumnixError, NobodyListensError, UnavailableError, UsageError } from "../core/errors.ts";
import { removeIfPresent } from "../core/files.ts";
import { logger } from "../core/log.ts";
import { parseAddress, tcpAddress } from "./address.ts";
import type { BasePeer } from "./base_peer.ts";
import {
  type Address,
  type BusLimits,
  type CallOptions,
  defaultBusLimits,
  type Listener,
} from "./bus.ts";
import { closeAt, closeQuietly } from "./closing.ts";
import { FrameReader } from "./frame_codec.ts";
import { greetBack, greetFirst, MAX_GREETING_BYTES } from "./greeting.ts";
import type { Protocol } from "./protocol.ts";
import { type ClusterKey, openTcp, type Tcp } from "./tcp.ts";
import { SocketPeer } from "./socket_peer.ts";
import type { AnyBus, AnyService } from "./transport.ts";
import { checkSocket, checkSocketDirectory, UnixPeers } from "./unix_trust.ts";

const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** How long one that connects may take to greet. */
const GREETING_TIMEOUT_MS = 5_000;
/** Most connections of a listener; each has buffers of 20 KB, and of 400 KB once it is busy. */
const MAX_CONNECTIONS = 16_384;
/** Most connections that have not greeted yet. One more closes the oldest of them. */
const MAX_GREETING = 256;
/** Pause after a failed accept, such as one for want of file descriptors. */
const ACCEPT_RETRY_MS = 100;
const SOCKET_MODE = 0o600;
/** Longest delay that setTimeout takes. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

const log = logger("bus");

/**
 * Connects processes of one host over Unix sockets, and hosts over TCP. Unix sockets connect
 * processes of one user, TCP connects processes that have the cluster's key.
 */
export class SocketBus implements AnyBus {
  #tcp: Promise<Tcp> | null = null;

  constructor(
    private readonly protocol: Protocol,
    private readonly limits: BusLimits = defaultBusLimits,
    private readonly clusterKey: ClusterKey | null = null,
  ) {}

  async listen(address: Address, service: AnyService): Promise<Listener> {
    const parsed = parseAddress(address);
    if (parsed.scheme === "tcp") {
      const tcp = await this.#openTcp();
      const listener = bind(address, () => tcp.listen(parsed.host, parsed.port));
      const bound = tcpAddress(parsed.host, (listener.addr as Deno.NetAddr).port);
      return new SocketListener({ ...this.#shared(service), address: bound, listener, tcp });
    }
    if (parsed.scheme !== "unix") throw unsupported(address);
    const { path } = parsed;
    checkSocketDirectory(dirname(path));
    if (await isStale(path)) Deno.removeSync(path);
    const listener = bind(address, () => Deno.listen({ transport: "unix", path }));
    Deno.chmodSync(path, SOCKET_MODE);
    return new SocketListener({ ...this.#shared(service), address, listener, path });
  }

  #shared(service: AnyService) {
    return { service, limits: this.limits, protocol: this.protocol };
  }

  /** @throws {UsageError} there is no key */
  #openTcp(): Promise<Tcp> {
    return this.#tcp ??= openTcp(this.clusterKey);
  }

  async connect(
    address: Address,
    service: AnyService,
    options?: CallOptions,
  ): Promise<SocketPeer> {
    const { limits, protocol } = this;
    const parsed = parseAddress(address);
    const timeoutMs = Math.min(options?.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS, MAX_TIMEOUT_MS);
    if (parsed.scheme === "unix") checkSocket(parsed.path);
    const tcp = parsed.scheme === "tcp" ? await this.#openTcp() : null;
    const deadlineMs = performance.now() + timeoutMs; // loading TLS for the first time does not count
    let conn = await dial(address, deadlineMs);
    const reader = new FrameReader(MAX_GREETING_BYTES);
    let pid: number | null = null;
    try {
      if (parsed.scheme === "unix") pid = new UnixPeers(parsed.path, "connected").check();
      conn = await secureAndGreet(conn, tcp, reader, protocol.version, deadlineMs);
    } catch (error) {
      closeQuietly(conn);
      if (error instanceof UsageError) throw new UsageError(`${address}: ${error.message}`);
      const why = performance.now() >= deadlineMs
        ? "it did not greet in time"
        : (error as Error).message;
      throw new UnavailableError(`cannot connect to ${address}: ${why}`, { cause: error });
    }
    return new SocketPeer(conn, reader, address, service, limits, protocol, pid);
  }
}

async function secureAndGreet(
  conn: Deno.Conn,
  tcp: Tcp | null,
  reader: FrameReader,
  version: number,
  deadlineMs: number,
): Promise<Deno.Conn> {
  const secured = tcp === null ? conn : await tcp.secure(conn as Deno.TcpConn, deadlineMs);
  const cancel = closeAt(deadlineMs, secured);
  try {
    await greetFirst(secured, reader, version);
    await tcp?.proveFirst(secured, reader, version);
    return secured;
  } catch (error) {
    closeQuietly(secured);
    throw error;
  } finally {
    cancel();
  }
}

interface SocketListenerConfig {
  readonly address: Address;
  readonly listener: Deno.Listener;
  readonly service: AnyService;
  readonly limits: BusLimits;
  readonly protocol: Protocol;
  /** Of a Unix socket. */
  readonly path?: string;
  readonly tcp?: Tcp;
}

class SocketListener implements Listener {
  readonly address: Address;
  readonly #config: SocketListenerConfig;
  readonly #greeting = new Set<Deno.Conn>();
  #peers = new Set<BasePeer>();
  #connections = 0;
  #isOpen = true;
  #accepting: Promise<void>;
  readonly #unixPeers: UnixPeers | null;

  constructor(config: SocketListenerConfig) {
    const { address, path } = config;
    this.address = address;
    this.#config = config;
    this.#unixPeers = path === undefined ? null : new UnixPeers(path, "accepted");
    this.#accepting = this.#acceptLoop();
  }

  async close(): Promise<void> {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.#config.listener.close();
      if (this.#config.path) removeIfPresent(this.#config.path);
    }
    await this.#accepting;
    for (const conn of this.#greeting) closeQuietly(conn);
    await Promise.all([...this.#peers].map((peer) => peer.close()));
  }

  async #acceptLoop(): Promise<void> {
    while (this.#isOpen) {
      const conn = await this.#config.listener.accept().catch(() => null);
      if (conn) this.#greet(conn);
      else if (this.#isOpen) await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
    }
  }

  async #greet(conn: Deno.Conn): Promise<void> {
    const remote = `${this.address}#${++this.#connections}`;
    // Strangers, who have proven nothing yet, do not take the places of peers.
    if (this.#greeting.size >= MAX_GREETING) closeQuietly([...this.#greeting][0]);
    if (this.#peers.size >= MAX_CONNECTIONS) {
      log.warn(`closing a connection: there are ${MAX_CONNECTIONS} others`, { remote });
      return closeQuietly(conn);
    }
    this.#greeting.add(conn);
    const reader = new FrameReader(MAX_GREETING_BYTES);
    const { tcp, protocol: { version } } = this.#config;
    try {
      const pid = this.#unixPeers?.check() ?? null;
      sendAtOnce(conn);
      const deadlineMs = performance.now() + GREETING_TIMEOUT_MS;
      const greeted = greetBack(conn, reader, version)
        .then(() => tcp?.proveBack(conn, reader, version));
      await greeted.finally(closeAt(deadlineMs, conn));
      if (this.#isOpen) this.#adopt(conn, reader, remote, pid);
      else closeQuietly(conn);
    } catch (error) {
      closeQuietly(conn);
      // One that says nothing may only have looked whether somebody listens.
      const isMessage = error instanceof LlumnixError;
      const { message } = error as Error;
      if (isMessage) log.warn(`closing a connection: ${message}`, { remote });
      else log.debug(`a connection ended before it greeted: ${message}`, { remote });
    } finally {
      this.#greeting.delete(conn);
    }
  }

  #adopt(conn: Deno.Conn, reader: FrameReader, remote: string, pid: number | null): void {
    const { service, limits, protocol } = this.#config;
    const peer = new SocketPeer(conn, reader, remote, service, limits, protocol, pid);
    this.#peers.add(peer);
    peer.closed.then(() => this.#peers.delete(peer));
    try {
      service.onConnect?.(peer);
    } catch (error) {
      log.error("onConnect failed", { remote, error });
      peer.close();
    }
  }
}

/** Small messages must not wait for the acknowledgement of earlier ones. */
function sendAtOnce(conn: Deno.Conn): void {
  if ("setNoDelay" in conn) (conn as Deno.TcpConn).setNoDelay(true);
  else if (conn.localAddr.transport === "tcp") sendAtOnceFrom(conn.localAddr.port); // accepted TLS
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
async function dial(address: Address, deadlineMs: number): Promise<Deno.Conn> {
  const parsed = parseAddress(address);
  const abort = new AbortController();
  const timeoutMs = Math.max(0, deadlineMs - performance.now());
  const timeout = new Error(`no answer in ${Math.round(timeoutMs)} ms`);
  const timer = setTimeout(() => abort.abort(timeout), timeoutMs);
  try {
    if (parsed.scheme === "unix") {
      return await Deno.connect({ transport: "unix", path: parsed.path });
    }
    if (parsed.scheme === "tcp") {
      const { host: hostname, port } = parsed;
      const conn = await Deno.connect({ hostname, port, signal: abort.signal });
      sendAtOnce(conn);
      return conn;
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
