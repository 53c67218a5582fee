/**
 * Finds servers that have stopped accepting connections. In Deno 2.9 a server whose `accept` failed once for
 * want of a file descriptor never accepts again, and says nothing.
 */
import type { Server } from "node:http";
import type { Socket } from "node:net";
import { waitingConnections } from "../../ffi/listening_sockets.ts";

/** How often it is looked whether a connection is accepted. */
const POLL_MS = 10;
/**
 * Turns of the event loop, of {@linkcode POLL_MS} each, after which waiting connections mean deafness. They
 * are counted instead of time: a busy event loop accepts nothing, however much time passes.
 */
const MAX_TURNS = 25;
/** Turns of a look at a socket whose queue is never seen empty, because connections keep coming. */
const MAX_LOOK_TURNS = 500;
/** How long a connection to this process may take to be accepted. */
const ACCEPT_TIMEOUT_MS = 2_000;

/**
 * Whether connections wait at a socket, and the server accepts none of them in 25 turns of the event loop.
 * Connections that another process accepts at the same socket, such as a successor, count as accepted.
 * @param fd any descriptor of the server's socket
 */
export async function leavesConnectionsWaiting(server: Server, fd: number): Promise<boolean> {
  let turnsWithoutAny = 0;
  const note = () => turnsWithoutAny = 0;
  server.on("connection", note);
  try {
    for (let turn = 0; turn < MAX_LOOK_TURNS; turn++) {
      if (waitingConnections(fd) === 0) return false;
      if (turnsWithoutAny++ === MAX_TURNS) return true;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    server.off("connection", note);
  }
  return false;
}

/**
 * The same where the system does not say how many connections wait: connects to the server.
 * @returns whether the connection was established, and the server was not told of it in time
 */
export async function ignoresConnection(
  server: Server,
  { hostname, port }: { readonly hostname: string; readonly port: number },
): Promise<boolean> {
  let connection: Deno.TcpConn;
  const accepted = new Set<number>();
  const note = (socket: Socket) => accepted.add(socket.remotePort ?? 0);
  server.on("connection", note);
  try {
    connection = await Deno.connect({ hostname: reachable(hostname), port });
  } catch (error) {
    server.off("connection", note);
    // Nobody listens: the attempt to listen again failed. Anything else says nothing of the listener.
    return error instanceof Deno.errors.ConnectionRefused;
  }
  const { port: own } = connection.localAddr as Deno.NetAddr;
  // A server that has its most connections closes this one, which shows as the end of the data.
  let isClosed = false;
  connection.read(new Uint8Array(1)).then(() => isClosed = true, () => {});
  const deadlineMs = performance.now() + ACCEPT_TIMEOUT_MS;
  while (!accepted.has(own) && !isClosed && performance.now() < deadlineMs) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  server.off("connection", note);
  connection.close();
  return !accepted.has(own) && !isClosed;
}

/** An address to connect to, for one that stands for all of them. */
function reachable(hostname: string): string {
  if (hostname === "0.0.0.0") return "127.0.0.1";
  return hostname === "::" ? "::1" : hostname;
}
