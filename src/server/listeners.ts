import type { Server } from "node:http";
import { Server as NetServer, type Socket } from "node:net";
import { UsageError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { ServerOptions } from "../core/options.ts";

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
/** How long a connection to this process may take to be accepted. */
const ACCEPT_TIMEOUT_MS = 2_000;

/** HTTP servers on the addresses of one host, all on one port; or on sockets that listened before. */
export class Listeners {
  readonly #config: ListenersConfig;
  readonly #servers: { server: Server; readonly address: ListeningAddress }[] = [];
  /** Resolves for each server that listened, including replaced ones, which may have connections. */
  readonly #closed: Promise<void>[] = [];
  readonly #all: Server[] = [];
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
    if (descriptors.length > 0) return listeners;
    for (const [index, host] of hosts.entries()) {
      try {
        await listeners.#listen({
          host,
          port: listeners.#servers[0]?.address.port ?? options.port,
        });
      } catch (error) {
        const isLastChance = listeners.#servers.length === 0 && index === hosts.length - 1;
        if (isMissingFamily(error) && !isLastChance) continue;
        listeners.stop();
        throw listenError(error as Error, options);
      }
    }
    if (config.mayRunOutOfFiles) listeners.#watch();
    return listeners;
  }

  get address(): ListeningAddress {
    return this.#servers[0].address;
  }

  /** The sockets were given: they are not at `--host` and `--port`. */
  get areGiven(): boolean {
    return (this.#config.descriptors ?? []).length > 0;
  }

  /** The addresses of all sockets. */
  get hostnames(): string[] {
    return this.#servers.map(({ address }) => address.hostname);
  }

  /** The ports of all sockets. */
  get ports(): number[] {
    return [...new Set(this.#servers.map(({ address }) => address.port))];
  }

  /** Accepts no more connections. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    for (const { server } of this.#servers) server.close();
  }

  /** The same, and connections that are kept open stay, which `Server.close` would end. */
  stopListening(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    for (const { server } of this.#servers) NetServer.prototype.close.call(server);
  }

  /** Connections with and without a request. */
  async countConnections(): Promise<number> {
    const counts = await Promise.all(
      this.#all.map((server) =>
        new Promise<number>((resolve) => {
          server.getConnections((error, count) => resolve(error ? 0 : count));
        })
      ),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  cutConnections(): void {
    for (const server of this.#all) server.closeAllConnections();
  }

  /** Resolves when no connection is left, after {@linkcode stop}. */
  async closed(): Promise<void> {
    await Promise.all(this.#closed);
  }

  async #listen(at: Place): Promise<void> {
    const server = await this.#create();
    this.#servers.push({ server, address: await listen(server, at) });
    this.#keep(server);
  }

  #create(): Promise<Server> {
    return this.#config.create();
  }

  #keep(server: Server): void {
    this.#all.push(server);
    this.#closed.push(new Promise((resolve) => server.on("close", () => resolve())));
  }

  /**
   * In Deno 2.9 a server whose `accept` failed once for want of a file descriptor never accepts again, and
   * says nothing. So this process connects to itself now and then, and listens anew if that is not accepted.
   */
  #watch(): void {
    this.#timer = setTimeout(async () => {
      for (const listener of this.#servers) {
        if (this.#isStopped) return;
        if (await accepts(listener.server, listener.address)) continue;
        await this.#replace(listener);
      }
      if (!this.#isStopped) this.#watch();
    }, WATCH_INTERVAL_MS);
  }

  async #replace(listener: { server: Server; readonly address: ListeningAddress }): Promise<void> {
    const { hostname, port } = listener.address;
    listener.server.close();
    try {
      const server = await this.#create();
      await listen(server, { host: hostname, port });
      this.#keep(server);
      listener.server = server;
      if (this.#isStopped) server.close();
      this.#config.log.warn(
        "accepting connections again, after this process had too many files open",
      );
    } catch (error) {
      this.#config.log.error("cannot listen again; trying once more", { error });
    }
  }
}

/** False if a connection to the server is established, and the server is not told of it in time. */
async function accepts(server: Server, { hostname, port }: ListeningAddress): Promise<boolean> {
  let connection: Deno.TcpConn;
  const accepted = new Set<number>();
  const note = (socket: Socket) => accepted.add(socket.remotePort ?? 0);
  server.on("connection", note);
  try {
    connection = await Deno.connect({ hostname: reachable(hostname), port });
  } catch (error) {
    server.off("connection", note);
    // Nobody listens: the attempt to listen again failed. Anything else says nothing of the listener.
    return !(error instanceof Deno.errors.ConnectionRefused);
  }
  const { port: own } = connection.localAddr as Deno.NetAddr;
  // A server that has its most connections closes this one, which shows as the end of the data.
  let isClosed = false;
  connection.read(new Uint8Array(1)).then(() => isClosed = true, () => {});
  const deadlineMs = performance.now() + ACCEPT_TIMEOUT_MS;
  while (!accepted.has(own) && !isClosed && performance.now() < deadlineMs) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  server.off("connection", note);
  connection.close();
  return accepted.has(own) || isClosed;
}

/** An address to connect to, for one that stands for all of them. */
function reachable(hostname: string): string {
  if (hostname === "0.0.0.0") return "127.0.0.1";
  return hostname === "::" ? "::1" : hostname;
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
