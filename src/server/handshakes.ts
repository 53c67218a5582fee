/** TLS connections whose handshake is not over, which `Server.closeAllConnections` does not end. */
import type { Server } from "node:http";
import type { Socket } from "node:net";

export class Handshakes {
  readonly #sockets = new Map<string, Socket>();

  /** @param server without TLS it has none */
  constructor(server: Server) {
    if (!("setSecureContext" in server)) return;
    server.on("connection", (socket: Socket) => {
      const name = nameOf(socket);
      this.#sockets.set(name, socket);
      socket.on("close", () => this.#sockets.delete(name));
    });
    // The socket of an event is another one, of the same names.
    server.on("secureConnection", (socket: Socket) => this.#sockets.delete(nameOf(socket)));
  }

  end(): void {
    for (const socket of this.#sockets.values()) socket.destroy();
  }
}

function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
