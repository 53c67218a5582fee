import { dirname } from "node:path";
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
import { FrameReader } from "./frame_codec.ts";
import { greetBack, greetFirst, MAX_GREETING_BYTES } from "./greeting.ts";
import type { Protocol } from "./protocol.ts";
import { SocketPeer } from "./socket_peer.ts";
import type { AnyBus, AnyService } from "./transport.ts";
import { checkSocket, checkSocketDirectory, UnixPeers } from "./unix_trust.ts";

const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** How long one that connects may take to greet. */
const GREETING_TIMEOUT_MS = 5_000;
/** Most connections of a listener; each has buffers of 400 KB. */
const MAX_CONNECTIONS = 4_096;
/** Pause after a failed accept, such as one for want of file descriptors. */
const ACCEPT_RETRY_MS = 100;
const SOCKET_MODE = 0o600;
/** Longest delay that setTimeout takes. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

const log = logger("bus");

/** Connects processes of one host over Unix sockets, and hosts over TCP. */
export class SocketBus implements AnyBus {
  constructor(
    private readonly protocol: Protocol,
    private readonly limits: BusLimits = defaultBusLimits,
  ) {}

  async listen(address: Address, service: AnyService): Promise<Listener> {
    const parsed = parseAddress(address);
    if (parsed.scheme === "tcp") {
      const listener = bind(
        address,
        () => Deno.listen({ hostname: parsed.host, port: parsed.port }),
      );
      const bound = tcpAddress(parsed.host, listener.addr.port);
      return new SocketListener(bound, listener, service, this.limits, this.protocol);
    }
    if (parsed.scheme !== "unix") throw unsupported(address);
    const { path } = parsed;
    checkSocketDirectory(dirname(path));
    if (await isStale(path)) Deno.removeSync(path);
    const listener = bind(address, () => Deno.listen({ transport: "unix", path }));
    Deno.chmodSync(path, SOCKET_MODE);
    return new SocketListener(address, listener, service, this.limits, this.protocol, path);
  }

  async connect(
    address: Address,
    service: AnyService,
    options?: CallOptions,
  ): Promise<SocketPeer> {
    const { limits, protocol } = this;
    const parsed = parseAddress(address);
    const timeoutMs = Math.min(options?.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS, MAX_TIMEOUT_MS);
    const deadlineMs = performance.now() + timeoutMs;
    if (parsed.scheme === "unix") checkSocket(parsed.path);
    const conn = await dial(address, deadlineMs);
    const reader = new FrameReader(MAX_GREETING_BYTES);
    let pid: number | null = null;
    try {
      if (parsed.scheme === "unix") pid = new UnixPeers(parsed.path, "connected").check();
      await greetFirst(conn, reader, protocol.version).finally(closeAt(deadlineMs, conn));
    } catch (error) {
      closeQuietly(conn);
      if (error instanceof UsageError) throw error;
      const why = performance.now() >= deadlineMs
        ? "it did not greet in time"
        : (error as Error).message;
      throw new UnavailableError(`cannot connect to ${address}: ${why}`, { cause: error });
    }
    return new SocketPeer(conn, reader, address, service, limits, protocol, pid);
  }
}

class SocketListener implements Listener {
  readonly #greeting = new Set<Deno.Conn>();
  #peers = new Set<BasePeer>();
  #connections = 0;
  #isOpen = true;
  #accepting: Promise<void>;
  readonly #unixPeers: UnixPeers | null;

  constructor(
    readonly address: Address,
    private readonly listener: Deno.Listener,
    private readonly service: AnyService,
    private readonly limits: BusLimits,
    private readonly protocol: Protocol,
    private readonly path?: string,
  ) {
    this.#unixPeers = path === undefined ? null : new UnixPeers(path, "accepted");
    this.#accepting = this.#acceptLoop();
  }

  async close(): Promise<void> {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.listener.close();
      if (this.path) removeIfPresent(this.path);
    }
    await this.#accepting;
    for (const conn of this.#greeting) closeQuietly(conn);
    await Promise.all([...this.#peers].map((peer) => peer.close()));
  }

  async #acceptLoop(): Promise<void> {
    while (this.#isOpen) {
      const conn = await this.listener.accept().catch(() => null);
      if (conn) this.#greet(conn);
      else if (this.#isOpen) await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
    }
  }

  async #greet(conn: Deno.Conn): Promise<void> {
    const remote = `${this.address}#${++this.#connections}`;
    if (this.#greeting.size + this.#peers.size >= MAX_CONNECTIONS) {
      log.warn(`closing a connection: there are ${MAX_CONNECTIONS} others`, { remote });
      return closeQuietly(conn);
    }
    this.#greeting.add(conn);
    const reader = new FrameReader(MAX_GREETING_BYTES);
    try {
      const pid = this.#unixPeers?.check() ?? null;
      sendAtOnce(conn);
      const deadlineMs = performance.now() + GREETING_TIMEOUT_MS;
      await greetBack(conn, reader, this.protocol.version).finally(closeAt(deadlineMs, conn));
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
    const { service, limits, protocol } = this;
    const peer = new SocketPeer(conn, reader, remote, service, limits, protocol, pid);
    this.#peers.add(peer);
    peer.closed.then(() => this.#peers.delete(peer));
    try {
      this.service.onConnect?.(peer);
    } catch (error) {
      log.error("onConnect failed", { remote, error });
      peer.close();
    }
  }
}

/** Small messages must not wait for the acknowledgement of earlier ones. */
function sendAtOnce(conn: Deno.Conn): void {
  if ("setNoDelay" in conn) (conn as Deno.TcpConn).setNoDelay(true);
}

/** Closes a connection at a deadline, unless the function that it returns is called before. */
function closeAt(deadlineMs: number, conn: Deno.Conn): () => void {
  const timer = setTimeout(() => closeQuietly(conn), deadlineMs - performance.now());
  return () => clearTimeout(timer);
}

function closeQuietly(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // It is closed already.
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
async function dial(address: Address, deadlineMs: number): Promise<Deno.Conn> {
  const parsed = parseAddress(address);
  const abort = new AbortController();
  const timeoutMs = deadlineMs - performance.now();
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
