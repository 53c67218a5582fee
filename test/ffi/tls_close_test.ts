import assert from "node:assert/strict";
import { closeTls } from "../../ffi/tls_close.ts";
import { within } from "../patience.ts";
import { certificate, privateKey } from "../server/tls_fixture.ts";

function canListen(hostname: string): boolean {
  try {
    Deno.listen({ hostname, port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

/** Reads all that comes, until the other end has closed the connection. */
async function readToEnd(connection: Deno.Conn): Promise<void> {
  const chunk = new Uint8Array(4096);
  while (await connection.read(chunk).catch(() => null) !== null);
}

for (const hostname of ["127.0.0.1", "::1"]) {
  const ignore = Deno.build.os !== "linux" || !canListen(hostname); // no IPv6 there

  Deno.test({
    name: `close of TLS at ${hostname}: one whose other end never began a handshake`,
    ignore,
    async fn() {
      using listener = Deno.listenTls({ hostname, port: 0, cert: certificate, key: privateKey });
      for (let i = 0; i < 3; i++) {
        const accepted = listener.accept();
        using silent = await Deno.connect({ hostname, port: listener.addr.port });
        using other = await Deno.connect({ hostname, port: listener.addr.port });
        closeTls(await accepted);
        await within(readToEnd(silent), "the connection ends");
        const second = await listener.accept(); // it is open still
        await other.write(Uint8Array.of(1));
        closeTls(second);
        await within(readToEnd(other), "the connection ends");
      }
    },
  });

  Deno.test({
    name: `close of TLS at ${hostname}: one whose handshake is never answered`,
    ignore,
    async fn() {
      using listener = Deno.listen({ hostname, port: 0 });
      const tcp = await Deno.connect({ hostname, port: listener.addr.port });
      using silent = await listener.accept();
      const tls = await Deno.startTls(tcp, { hostname: "localhost" });
      const handshake = assert.rejects(tls.handshake());
      closeTls(tls);
      await within(readToEnd(silent), "the connection ends");
      await handshake;
      assert.throws(() => closeTls(tls), Deno.errors.BadResource);
    },
  });
}
