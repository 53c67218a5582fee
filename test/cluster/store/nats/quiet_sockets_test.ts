import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { quietSockets } from "../../../../src/cluster/store/nats/quiet_sockets.ts";

async function connected(body: (socket: net.Socket) => void): Promise<void> {
  const server = net.createServer((peer) => peer.on("error", () => {})).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  quietSockets([`localhost:${port}`]);
  const socket = net.createConnection(port, "127.0.0.1");
  await once(socket, "connect");
  body(socket);
  socket.destroy();
  server.close();
  await once(server, "close");
}

Deno.test("sockets of the NATS client: an error after all listeners are taken off ends nothing", () =>
  connected((socket) => {
    socket.removeAllListeners();
    socket.emit("error", new Error("read ECONNRESET"));
    const seen: string[] = [];
    socket.on("error", ({ message }) => seen.push(message));
    socket.emit("error", new Error("seen"));
    assert.deepEqual(seen, ["seen"]);
  }));

Deno.test("sockets of other programs are left alone", () => {
  const socket = new net.Socket();
  socket.removeAllListeners();
  assert.throws(() => socket.emit("error", new Error("late")), /late/);
});
