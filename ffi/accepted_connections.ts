/**
 * The TCP connections that this process has accepted at a port, and a way to end them: Deno's HTTP server
 * shows no connection before a request comes, and keeps silent ones for ever. Linux.
 */
import { linuxLibC } from "./libc.ts";
import { nameSymbol, ownDescriptors, tcpPort } from "./socket_names.ts";

const libc = linuxLibC({
  getsockname: nameSymbol,
  getpeername: nameSymbol,
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
});

/** sys/socket.h of Linux. */
const SHUT_RDWR = 2;

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

/**
 * The connections that this thread's servers have accepted at `localPort`.
 * @returns null where the system does not say
 */
export function acceptedConnections(localPort: number): AcceptedConnection[] | null {
  const c = libc();
  if (c === null) return null;
  const connections: AcceptedConnection[] = [];
  for (const fd of ownDescriptors()) {
    if (tcpPort(c.getsockname, fd) !== localPort) continue;
    const peerPort = tcpPort(c.getpeername, fd);
    if (peerPort === null) continue; // it listens
    const inode = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    connections.push({ inode, peerPort, end: () => void c.shutdown(fd, SHUT_RDWR) });
  }
  return connections;
}
