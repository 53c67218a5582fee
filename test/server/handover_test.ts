/** Two servers, one after the other, at one listening socket. Linux. */
import assert from "node:assert/strict";
import { listeningSockets } from "../../ffi/listening_sockets.ts";
import { type Harness, until, withServer } from "./harness.ts";
import { certificate, privateKey } from "./tls_fixture.ts";

const ignore = Deno.build.os !== "linux";
const encoder = new TextEncoder();

/** The socket of a server, as a successor would inherit it: another descriptor of the same socket. */
function socketOf({ server }: Harness): number {
  const { fd } = listeningSockets().find(({ port }) => port === server.address.port)!;
  return dup(fd);
}

function dup(fd: number): number {
  const c = Deno.dlopen("libc.so.6", { dup: { parameters: ["i32"], result: "i32" } });
  try {
    return c.symbols.dup(fd);
  } finally {
    c.close();
  }
}

async function answer(url: string): Promise<{ status: number; connection: string | null }> {
  // Without a pool, so that a connection is never one that was kept.
  using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  const response = await fetch(`${url}/health`, { client });
  await response.text();
  return { status: response.status, connection: response.headers.get("connection") };
}

Deno.test({
  name: "handover: a stream goes on to its end, and new connections reach the successor",
  ignore,
  fn: () =>
    withServer({}, async (first) => {
      const more = Promise.withResolvers<void>();
      first.service.generate = async (_request, emit) => {
        emit({ text: "a", tokenIds: [1] });
        await more.promise;
        emit({ text: "b", tokenIds: [2], finish: { reason: "stop", stopReason: null } });
      };
      const stream = fetch(`${first.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "x", stream: true }),
      }).then((response) => response.text());
      await until(() => first.service.requests.length === 1);

      await withServer({ descriptors: [socketOf(first)] }, async (second) => {
        assert.equal(second.server.address.port, first.server.address.port);
        let hasGivenWay = false;
        const givenWay = first.server.giveWay().then(() => hasGivenWay = true);
        for (let i = 0; i < 5; i++) assert.equal((await answer(second.url)).status, 200);
        assert.equal(hasGivenWay, false); // the stream is not over
        const { post, service } = second;
        assert.equal((await post("/v1/completions", { prompt: "y" })).status, 200);
        assert.equal(service.requests.length, 1);
        more.resolve();
        await givenWay;
        assert.match(await stream, /"text":"a"[^]*"text":"b"[^]*\[DONE\]/);
      });
    }),
});

Deno.test({
  name: "handover: a kept connection is asked to close, and one that was just opened is answered",
  ignore,
  fn: () =>
    withServer({}, async ({ server }) => {
      const request = encoder.encode("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
      const read = async (connection: Deno.TcpConn) => {
        const buffer = new Uint8Array(4096);
        const bytes = await connection.read(buffer);
        return bytes === null ? null : new TextDecoder().decode(buffer.subarray(0, bytes));
      };
      using kept = await Deno.connect(server.address);
      await kept.write(request);
      assert.match((await read(kept))!, /connection: keep-alive/i);
      using opened = await Deno.connect(server.address);
      const givenWay = server.giveWay();
      await kept.write(request);
      assert.match((await read(kept))!, /^HTTP\/1\.1 200[^]*connection: close/i);
      assert.equal(await read(kept), null);
      await opened.write(request);
      assert.match((await read(opened))!, /^HTTP\/1\.1 200[^]*connection: close/i);
      await givenWay;
      await assert.rejects(Deno.connect(server.address)); // nobody else has the socket
    }),
});

Deno.test({
  name: "handover: a server that gives way can still be stopped by a deadline",
  ignore,
  fn: () =>
    withServer({}, async ({ server, service, url }) => {
      service.generate = (_request, emit) => emit({ text: "a", tokenIds: [1] }); // and no more
      const stream = fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "x", stream: true }),
      }).then((response) => response.text());
      await until(() => service.requests.length === 1);
      const givenWay = server.giveWay();
      await server.shutdown(50);
      assert.match(await stream, /the time that running requests have to end is over/);
      await givenWay;
    }),
});

Deno.test({
  name: "handover: with TLS",
  ignore,
  async fn() {
    const directory = await Deno.makeTempDir();
    const options = {
      host: "localhost", // two sockets where there is IPv6
      sslCertfile: `${directory}/certificate.pem`,
      sslKeyfile: `${directory}/key.pem`,
    };
    await Deno.writeTextFile(options.sslCertfile, certificate);
    await Deno.writeTextFile(options.sslKeyfile, privateKey);
    try {
      await withServer({ options }, async (first) => {
        const descriptors = listeningSockets()
          .filter(({ port }) => port === first.server.address.port)
          .map(({ fd }) => dup(fd));
        await withServer({ options, descriptors }, async (second) => {
          using client = Deno.createHttpClient({ caCerts: [certificate], poolMaxIdlePerHost: 0 });
          const health = async () => {
            const response = await fetch(`${second.url}/health`, { client });
            await response.text();
            return response.status;
          };
          assert.match(second.url, /^https:/);
          assert.equal(await health(), 200);
          await first.server.giveWay();
          for (let i = 0; i < 4; i++) assert.equal(await health(), 200);
        });
      });
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});

Deno.test("handover: what is no socket is refused", async () => {
  await assert.rejects(withServer({ descriptors: [999] }, async () => {}), {
    name: "UsageError",
    message: /^cannot serve at a given socket: /,
  });
});

Deno.test({
  name:
    "given sockets: the server says who reaches them, and takes pages by the names of all hosts",
  ignore,
  async fn() {
    using open = Deno.listen({ hostname: "0.0.0.0", port: 0 });
    const { fd } = listeningSockets().find(({ port }) => port === open.addr.port)!;
    await withServer({ descriptors: [dup(fd)] }, async ({ url, log, server }) => {
      assert.equal(server.address.hostname, "0.0.0.0", "not --host, which is 127.0.0.1");
      assert.match(log.join("\n"), /everyone who reaches this address .*"0\.0\.0\.0"/);
      using conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
      const body = '{"prompt": "x", "max_tokens": 1}';
      await conn.write(encoder.encode(
        "POST /v1/completions HTTP/1.1\r\nhost: gpu.example:8000\r\n" +
          "origin: http://gpu.example:8000\r\nconnection: close\r\n" +
          `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      ));
      assert.match(await new Response(conn.readable).text(), /^HTTP\/1\.1 200 /);
    });
  },
});
