import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { listeningSockets } from "../../ffi/listening_sockets.ts";
import { ignoresConnection, leavesConnectionsWaiting } from "../../src/server/deafness.ts";

async function withServer(body: (server: Server, port: number) => Promise<void>): Promise<void> {
  const server = createServer((_, response) => response.end());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  try {
    await body(server, (server.address() as AddressInfo).port);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

Deno.test("deafness: a connection that is not accepted is noticed, by connecting", () =>
  withServer(async (server, port) => {
    const hostname = "127.0.0.1";
    assert.equal(await ignoresConnection(server, { hostname, port }), false);
    using nobody = Deno.listen({ hostname, port: 0 });
    assert.equal(await ignoresConnection(server, { hostname, port: nobody.addr.port }), true);
  }));

Deno.test({
  name: "deafness: connections that nobody accepts are noticed in the queue of the socket",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withServer(async (server, port) => {
      const socketAt = (port: number) => listeningSockets().find((it) => it.port === port)!.fd;
      assert.equal(await leavesConnectionsWaiting(server, socketAt(port)), false);
      using nobody = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const socket = socketAt(nobody.addr.port);
      assert.equal(await leavesConnectionsWaiting(server, socket), false, "nothing waits");
      using _waiting = await Deno.connect({ hostname: "127.0.0.1", port: nobody.addr.port });
      assert.equal(await leavesConnectionsWaiting(server, socket), true);
      // Another process at the same socket accepts them: here, the listener itself.
      const watched = leavesConnectionsWaiting(server, socket);
      (await nobody.accept()).close();
      assert.equal(await watched, false);
    }),
});
