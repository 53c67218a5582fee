import type { Server } from "node:http";
import { Server as NetServer } from "node:net";
import { closeDescriptor } from "../../ffi/libc.ts";
import { duplicate, inodeOf, listeningSockets } from "../../ffi/listening_sockets.ts";
import { UsageError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { ServerOptions } from "../core/options.ts";
import { ignoresConnection, leavesConnectionsWaiting } from "./deafness.ts";
import { Handshakes } from "./handshakes.ts";

export interface ListenersConfig {
  /** Addresses to listen on, all on one port; one that this machine does not have is left out. */
  readonly hosts: readonly string[];
  readonly options: ServerOptions;
  readonly create: () => Promise<Server>;
  readonly log: Log;
  /**
   * Descriptors of sockets that listen already, from systemd or from a predecessor. If there are any,
   * they take the place of the hosts.
   */
  readonly descriptors?: readonly number[];
  /** Connections may take the last file descriptors of this process. */
  readonly mayRunOutOfFiles: boolean;
}

export interface ListeningAddress {
  readonly hostname: string;
  readonly port: number;
}

/** How often it is checked that connections are accepted. */
const WATCH_INTERVAL_MS = 1_000;

/** A socket that listens, and the server that accepts its connections. */
interface Door {
  server: Server;
  readonly address: ListeningAddress;
  /**
   * Another descriptor of the socket, so that the socket outlives a server that must be replaced. Null:
   * only Linux has them, or this process may not open more files.
   */
  spare: number | null;
}

/** HTTP servers on the addresses of one host, all on one port; or on sockets that listened before. */
export class Listeners {
  readonly #config: ListenersConfig;
  readonly #doors: Door[] = [];
  /** All that have not closed, including replaced ones, which may have connections. */
  readonly #open = new Map<Server, { closed: Promise<void>; handshakes: Handshakes }>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isStopped = false;

  private constructor(config: ListenersConfig) {
    this.#config = config;
  }

  /** @throws {UsageError} the port is taken, or the host is not of this machine */
  static async open(config: ListenersConfig): Promise<Listeners> {
    const listeners = new Listeners(config);
    const { hosts, options, descriptors = [] } = config;
    try {
      for (const fd of descriptors) await listeners.#listen({ fd });
    } catch (error) {
      listeners.stop();
      throw new UsageError(`cannot serve at a given socket: ${(error as Error).message}`);
    }
    for (const [index, host] of descriptors.length > 0 ? [] : hosts.entries()) {
      try {
        await listeners.#listen({
          host,
          port: listeners.#doors[0]?.address.port ?? options.port,
        });
      } catch (error) {
        const isLastChance = listeners.#doors.length === 0 && index === hosts.length - 1;
        if (isMissingFamily(error) && !isLastChance) continue;
        listeners.stop();
        throw listenError(error as Error, options);
      }
    }
    if (config.mayRunOutOfFiles) listeners.#watch();
    return listeners;
  }

  get address(): ListeningAddress {
    return this.#doors[0].address;
  }

  /** The sockets were given: they are not at `--host` and `--port`. */
  get areGiven(): boolean {
    return (this.#config.descriptors ?? []).length > 0;
  }

  /** The addresses of all sockets. */
  get hostnames(): string[] {
    return this.#doors.map(({ address }) => address.hostname);
  }

  /** The ports of all sockets. */
  get ports(): number[] {
    return [...new Set(this.#doors.map(({ address }) => address.port))];
  }

  /** Accepts no more connections. */
  stop(): void {
    this.#stopWatch();
    for (const { server } of this.#doors) server.close();
  }

  /** The same, and connections that are kept open stay, which `Server.close` would end. */
  stopListening(): void {
    this.#stopWatch();
    for (const { server } of this.#doors) NetServer.prototype.close.call(server);
  }

  /** Connections with and without a request. */
  async countConnections(): Promise<number> {
    const counts = await Promise.all(
      [...this.#open.keys()].map((server) =>
        new Promise<number>((resolve) => {
          server.getConnections((error, count) => resolve(error ? 0 : count));
        })
      ),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  cutConnections(): void {
    for (const [server, { handshakes }] of this.#open) {
      server.closeAllConnections();
      handshakes.end();
    }
  }

  /** Resolves when no connection is left, after {@linkcode stop}. */
  async closed(): Promise<void> {
    await Promise.all([...this.#open.values()].map(({ closed }) => closed));
  }

  async #listen(at: Place): Promise<void> {
    const server = await this.#config.create();
    const address = await listen(server, at);
    this.#keep(server);
    this.#doors.push({ server, address, spare: this.#spareOf(address) });
  }

  /** Another descriptor of a socket that now listens at an address. */
  #spareOf({ port }: ListeningAddress): number | null {
    const others = this.#doors.map(({ spare }) => spare === null ? null : inodeOf(spare));
    const found = listeningSockets().find((socket) =>
      socket.port === port && !others.includes(socket.inode)
    );
    return found === undefined ? null : duplicate(found.fd);
  }

  #keep(server: Server): void {
    const closed = new Promise<void>((resolve) => server.on("close", () => resolve()))
      .then(() => void this.#open.delete(server));
    this.#open.set(server, { closed, handshakes: new Handshakes(server) });
  }

  /** Replaces servers that accept no more connections: see `deafness.ts`. */
  #watch(): void {
    this.#timer = setTimeout(async () => {
      for (const door of this.#doors) await this.#openUntilItHears(door);
      if (!this.#isStopped) this.#watch();
    }, WATCH_INTERVAL_MS);
  }

  /** The connections that wait may use up the descriptors several times, so the next look is at once. */
  async #openUntilItHears(door: Door): Promise<void> {
    let wasDeaf = false;
    while (!this.#isStopped && await isDeaf(door) && !this.#isStopped) {
      if (!await this.#replace(door)) return;
      if (!wasDeaf) {
        this.#config.log.warn("this process had too many files open; accepting connections again");
      }
      wasDeaf = true;
    }
  }

  /** @returns whether it could */
  async #replace(door: Door): Promise<boolean> {
    const { server: deaf, address: { hostname, port } } = door;
    try {
      const server = await this.#config.create();
      if (this.#isStopped) return false;
      const { spare } = door;
      if (spare === null) deaf.close();
      await listen(server, spare === null ? { host: hostname, port } : { fd: copyOf(spare) });
      if (spare !== null) deaf.close();
      this.#keep(server);
      door.server = server;
      if (this.#isStopped) server.close();
      return true;
    } catch (error) {
      this.#config.log.error("cannot listen again; trying once more", { error });
      return false;
    }
  }

  #stopWatch(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    for (const door of this.#doors) {
      if (door.spare !== null) closeDescriptor(door.spare);
      door.spare = null;
    }
  }
}

function isDeaf({ server, address, spare }: Door): Promise<boolean> {
  return spare === null
    ? ignoresConnection(server, address)
    : leavesConnectionsWaiting(server, spare);
}

/** @throws {Error} this process may not open more files */
function copyOf(fd: number): number {
  const copy = duplicate(fd);
  if (copy === null) throw new Error("this process has too many files open");
  return copy;
}

/** An address to bind, or a socket that listens. */
type Place = { readonly host: string; readonly port: number } | { readonly fd: number };

function listen(server: Server, at: Place): Promise<ListeningAddress> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(at, () => {
      server.off("error", reject);
      const { address, port } = server.address() as { address: string; port: number };
      resolve({ hostname: address, port });
    });
  });
}

/** This machine has no IPv4, or no IPv6. */
function isMissingFamily(error: unknown): boolean {
  return ["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes((error as { code?: string }).code ?? "");
}

function listenError(cause: Error & { code?: string }, { host, port }: ServerOptions): UsageError {
  switch (cause.code) {
    case "EADDRINUSE":
      return new UsageError(
        `port ${port} of ${host} is in use by another process; stop that or choose another --port`,
        { cause },
      );
    case "EACCES":
      return new UsageError(
        `port ${port} of ${host} may not be used by this user; choose a --port of 1024 or more`,
        { cause },
      );
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return new UsageError(
        `--host "${host}" is not known; give an address or name of this machine, or 0.0.0.0 for all`,
        { cause },
      );
    default:
      return new UsageError(
        `cannot listen on --host ${host} --port ${port}: ${cause.message}; the host must be an ` +
          "address or name of this machine, or 0.0.0.0 for all",
        { cause },
      );
  }
}
