/**
 * Sockets of the NATS client whose late errors end nothing. The client takes all listeners off a socket
 * when it has connected, when it has read the server's greeting, and when it gives the socket up. An error
 * in between, such as the reset of a server that refuses credentials, would be an uncaught one.
 */
import net from "node:net";

/** The client resolves names of hosts by itself, so only the ports are known here. */
const ports = new Set<number>();
let isInstalled = false;

/** From now on, for connections to the ports of these servers (`host:port`). */
export function quietSockets(servers: readonly string[]): void {
  for (const server of servers) ports.add(Number(server.slice(server.lastIndexOf(":") + 1)));
  if (isInstalled) return;
  isInstalled = true;
  const connect = net.createConnection as (...args: unknown[]) => net.Socket;
  const quietConnect = (...args: unknown[]) => {
    const socket = connect(...args);
    if (ports.has(Number(args[0]))) keepErrorListener(socket);
    return socket;
  };
  net.createConnection = quietConnect as typeof net.createConnection;
}

function keepErrorListener(socket: net.Socket): void {
  const remove = socket.removeAllListeners.bind(socket);
  socket.removeAllListeners = (event?: string) => {
    if (event === undefined) remove();
    else remove(event);
    socket.on("error", () => {}); // whoever waits for the socket sees that it is closed
    return socket;
  };
}
