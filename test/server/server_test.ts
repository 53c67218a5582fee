/** Starting and stopping. */
import assert from "node:assert/strict";
import { UsageError } from "../../src/core/errors.ts";
import { startServer } from "../../src/server/server.ts";
import { FakeTextService } from "./fake_text_service.ts";
import { testOptions, until, withServer } from "./harness.ts";
import { certificate, clientCertificate, clientKey, otherKey, privateKey } from "./tls_fixture.ts";

/** A start that is refused is told to the caller, and not logged as well. */
const silent = { debug() {}, info() {}, warn() {}, error: (text: string) => assert.fail(text) };

function start(options: Partial<typeof testOptions>) {
  const service = new FakeTextService();
  const all = { ...testOptions, ...options };
  return startServer({ service, options: all, version: "0", log: silent });
}

async function usageError(options: Partial<typeof testOptions>): Promise<string> {
  try {
    const server = await start(options);
    server.closeNow();
  } catch (error) {
    assert.ok(error instanceof UsageError, String(error));
    return error.message;
  }
  throw new Error("it started");
}

/** Runs `test` with a directory that holds the files. */
async function withFiles(
  files: Record<string, string>,
  test: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${directory}/${name}`, text);
    }
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("localhost is both loopback addresses, where both are there", async () => {
  const families = ["127.0.0.1", "::1"].filter((hostname) => {
    try {
      Deno.listen({ hostname, port: 0 }).close();
      return true;
    } catch {
      return false;
    }
  });
  await withServer({ options: { host: "localhost" } }, async ({ server, url }) => {
    const { port } = server.address;
    assert.equal(url, `http://localhost:${port}`);
    for (const hostname of families) {
      const host = hostname.includes(":") ? `[${hostname}]` : hostname;
      const response = await fetch(`http://${host}:${port}/version`);
      assert.deepEqual(await response.json(), { version: "1.2.3" });
    }
  });
});

Deno.test("a port in use and an unknown host are told by name", () =>
  withServer({}, async ({ server }) => {
    const { port } = server.address;
    assert.equal(
      await usageError({ port }),
      `port ${port} of 127.0.0.1 is in use by another process; stop that or choose another --port`,
    );
    assert.match(
      await usageError({ host: "no.such.host.invalid" }),
      /^--host "no.such.host.invalid" is not known/,
    );
  }));

Deno.test("TLS files that cannot be used are told by name", () =>
  withFiles(
    { "cert.pem": certificate, "key.pem": privateKey, "other.pem": otherKey, "text.pem": "hello" },
    async (directory) => {
      const [cert, key, other, text] = ["cert", "key", "other", "text"]
        .map((name) => `${directory}/${name}.pem`);
      const cases: [string | null, string | null, RegExp][] = [
        [cert, null, /^--ssl-certfile needs --ssl-keyfile too/],
        [null, key, /^--ssl-keyfile needs --ssl-certfile too/],
        [
          `${directory}/none`,
          key,
          /^--ssl-certfile .*none cannot be read: no such file or directory$/,
        ],
        [cert, directory, /^--ssl-keyfile .* cannot be read: it is a directory$/],
        [text, key, /text.pem holds no certificate in PEM form/],
        [cert, text, /text.pem holds no unencrypted private key in PEM form/],
        [cert, other, /the key in .*other.pem does not belong to the certificate in .*cert.pem/],
      ];
      for (const [sslCertfile, sslKeyfile, message] of cases) {
        assert.match(await usageError({ sslCertfile, sslKeyfile }), message);
      }
    },
  ));

Deno.test("serves over TLS", () =>
  withFiles({ "cert.pem": certificate, "key.pem": privateKey }, async (directory) => {
    const server = await start({
      sslCertfile: `${directory}/cert.pem`,
      sslKeyfile: `${directory}/key.pem`,
    });
    assert.match(server.url, /^https:/);
    using client = Deno.createHttpClient({ caCerts: [certificate] });
    const response = await fetch(`${server.url}/v1/completions`, {
      client,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", stream: true }),
    });
    assert.match(await response.text(), /Hello[^]*\[DONE\]/);
    await server.shutdown(1000);
  }));

Deno.test("shutdown lets running requests finish and takes no new ones", () =>
  withServer({}, async ({ server, service, post, url }) => {
    const gate = Promise.withResolvers<void>();
    service.generate = (_request, emit) => {
      emit({ text: "a", tokenIds: [1] });
      const finish = { reason: "stop" as const, stopReason: null };
      gate.promise.then(() => emit({ text: "b", tokenIds: [2], finish }));
    };
    const whole = post("/v1/completions", { prompt: "x" });
    const streamed = post("/v1/completions", { prompt: "x", stream: true });
    await until(() => service.requests.length === 2);
    const stopped = server.shutdown(10_000);
    await assert.rejects(fetch(`${url}/health`));
    gate.resolve();
    assert.equal((await whole).json.choices[0].text, "ab");
    assert.match((await streamed).text, /\[DONE\]/);
    await stopped;
    assert.deepEqual(service.aborted, []);
  }));

Deno.test("at the deadline of a shutdown requests end with an error", () =>
  withServer({}, async ({ server, service, post, log }) => {
    service.generate = (_request, emit) => emit({ text: "a", tokenIds: [1] });
    const whole = post("/v1/completions", { prompt: "x" });
    const streamed = post("/v1/completions", { prompt: "x", stream: true });
    await until(() => service.requests.length === 2);
    await server.shutdown(20);
    const message =
      "The server is stopping, and the time that running requests have to end is over " +
      "(--shutdown-timeout). Send the request again once it is back, or to another one.";
    assert.equal((await whole).status, 503);
    assert.equal((await whole).json.error.message, message);
    const events = (await streamed).text.split("\n\n").filter(Boolean);
    assert.equal(JSON.parse(events.at(-1)!.slice("data: ".length)).error.message, message);
    assert.equal(service.aborted.length, 2);
    assert.match(log.join(), /still running at the deadline.*"requests":2/);
  }));

Deno.test("closeNow in a shutdown cuts what still runs", () =>
  withServer({}, async ({ server, service, post }) => {
    service.generate = () => {};
    const request = post("/generate", { prompt: "x" }).catch(() => null);
    await until(() => service.requests.length === 1);
    const stopped = server.shutdown(60_000);
    server.closeNow();
    await stopped;
    await request;
    assert.equal(service.aborted.length, 1);
  }));

Deno.test("a shutdown does not wait for idle or silent connections", () =>
  withServer({}, async ({ server, post }) => {
    await post("/generate", { prompt: "x" }); // leaves an idle connection in fetch's pool
    const silent = await Deno.connect(server.address);
    await server.shutdown(60_000);
    silent.close();
  }));

Deno.test("with --ssl-cert-reqs 2 only clients with a certificate of the authorities get in", () => {
  const files = {
    "cert.pem": certificate,
    "key.pem": privateKey,
    "ca.pem": clientCertificate,
    "bad.pem": "nothing",
  };
  return withFiles(files, async (directory) => {
    const pair = {
      sslCertfile: `${directory}/cert.pem`,
      sslKeyfile: `${directory}/key.pem`,
    };
    const sslCaCerts = `${directory}/ca.pem`;
    assert.match(await usageError({ ...pair, sslCertReqs: 2 }), /needs --ssl-ca-certs/);
    assert.match(await usageError({ ...pair, sslCaCerts }), /needs --ssl-cert-reqs 2/);
    assert.match(await usageError({ sslCaCerts, sslCertReqs: 2 }), /needs --ssl-certfile/);
    const bad = { ...pair, sslCaCerts: `${directory}/bad.pem`, sslCertReqs: 2 } as const;
    assert.match(await usageError(bad), /^--ssl-ca-certs .* holds no certificate in PEM form/);

    const server = await start({ ...pair, sslCaCerts, sslCertReqs: 2 });
    const health = async (own: { cert?: string; key?: string }) => {
      const { port } = server.address;
      const to = { hostname: "localhost", port, caCerts: [certificate] };
      using connection = await Deno.connectTls(
        "cert" in own ? { ...to, ...own as Deno.TlsCertifiedKeyPem } : to,
      );
      const request = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
      await connection.write(new TextEncoder().encode(request));
      const answer = new Uint8Array(64);
      const n = await connection.read(answer);
      return new TextDecoder().decode(answer.subarray(0, n ?? 0));
    };
    try {
      assert.match(await health({ cert: clientCertificate, key: clientKey }), /^HTTP\/1.1 200/);
      await assert.rejects(health({}));
      await assert.rejects(health({ cert: certificate, key: privateKey }));
    } finally {
      server.closeNow();
      await server.shutdown(0);
    }
  });
});
