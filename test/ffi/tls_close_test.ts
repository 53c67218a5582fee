import assert from "node:assert/strict";
import { closeTls } from "../../ffi/tls_close.ts";
import { certificate, privateKey } from "../server/tls_fixture.ts";

function canListen(hostname: string): boolean {
  try {
    Deno.listen({ hostname, port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

/** "closed", or that it is still open after ten seconds. */
async function stateOf(connection: Deno.Conn): Promise<string> {
  const toEnd = async () => {
    const chunk = new Uint8Array(4096);
    while (await connection.read(chunk).catch(() => null) !== null);
    return "closed";
  };
  const end = toEnd();
  const limit = new Promise<string>((resolve) => {
    const timer = setTimeout(() => resolve("open"), 10_000);
    end.finally(() => clearTimeout(timer));
  });
  return await Promise.race([end, limit]);
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
        assert.equal(await stateOf(silent), "closed");
        const second = await listener.accept(); // it is open still
        await other.write(Uint8Array.of(1));
        closeTls(second);
        assert.equal(await stateOf(other), "closed");
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
      assert.equal(await stateOf(silent), "closed");
      await handshake;
      assert.throws(() => closeTls(tls), Deno.errors.BadResource);
    },
  });
}
