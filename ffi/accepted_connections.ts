/**
 * The TCP connections that this process has accepted at a port, and a way to end them: Deno's HTTP server
 * shows no connection before a request comes, and keeps silent ones for ever. Linux.
 */
import { openLibC } from "./libc.ts";

const symbols = {
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// sys/socket.h, netinet/in.h
const AF_INET = 2;
const AF_INET6 = 10;
const SHUT_RDWR = 2;
/** `struct sockaddr_in6`, the larger of the two. */
const ADDRESS_BYTES = 28;

/** A connection that this process has accepted. */
export interface AcceptedConnection {
  /** Tells it from all others of the host, also from one that gets its descriptor later. */
  readonly inode: string;
  readonly peerPort: number;
  /**
   * Ends it: both sides read its end. Only in the turn of the event loop in which the connection was
   * listed: later its descriptor may be another file's.
   */
  end(): void;
}

let loaded: ReturnType<typeof openLibC<typeof symbols>> | undefined;

/**
 * The connections that this thread's servers have accepted at `localPort`.
 * @returns null where the system does not say
 */
export function acceptedConnections(localPort: number): AcceptedConnection[] | null {
  if (Deno.build.os !== "linux") return null;
  const c = loaded === undefined ? loaded = openLibC(symbols) : loaded;
  if (c === null) return null;
  const address = new Uint8Array(ADDRESS_BYTES);
  const length = new Uint32Array(1);
  const portOf = (get: typeof c.getsockname, fd: number): number | null => {
    length[0] = ADDRESS_BYTES;
    if (get(fd, address, new Uint8Array(length.buffer)) !== 0) return null;
    const family = address[0] | address[1] << 8;
    return family === AF_INET || family === AF_INET6 ? address[2] << 8 | address[3] : null;
  };
  const connections: AcceptedConnection[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(name);
    if (portOf(c.getsockname, fd) !== localPort) continue;
    const peerPort = portOf(c.getpeername, fd);
    if (peerPort === null) continue; // it listens
    const inode = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    connections.push({ inode, peerPort, end: () => void c.shutdown(fd, SHUT_RDWR) });
  }
  return connections;
}
