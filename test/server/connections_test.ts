/** Clients that leave, stop reading, or never finish asking. */
import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { ENDLESS_MS, PATIENCE_MS, within } from "../patience.ts";
import { speak } from "./fake_text_service.ts";
import { type Harness, until, withServer } from "./harness.ts";
import { certificate, privateKey } from "./tls_fixture.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A connection on which `text` was sent. */
async function connect({ server }: Harness, text: string): Promise<Deno.TcpConn> {
  const connection = await Deno.connect(server.address);
  await connection.write(encoder.encode(text));
  return connection;
}

function request(path: string, body: unknown): string {
  const json = JSON.stringify(body);
  return `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n` +
    `Content-Length: ${json.length}\r\n\r\n${json}`;
}

/** What the server sends until it closes. */
async function readAll(connection: Deno.TcpConn): Promise<string> {
  let text = "";
  const buffer = new Uint8Array(65536);
  for (;;) {
    const bytes = await connection.read(buffer).catch(() => null);
    if (bytes === null) break;
    text += decoder.decode(buffer.subarray(0, bytes), { stream: true });
  }
  connection.close();
  return text;
}

/** Reads until `text` has come. */
async function readUntil(connection: Deno.TcpConn, text: string): Promise<void> {
  const buffer = new Uint8Array(65536);
  for (let seen = ""; !seen.includes(text);) {
    const bytes = await connection.read(buffer);
    assert.notEqual(bytes, null, `closed before ${text}`);
    seen += decoder.decode(buffer.subarray(0, bytes!));
  }
}

/** One piece at once, then nothing. */
const beginAndHang: Harness["service"]["generate"] = (_request, emit) =>
  emit({ text: "begun", tokenIds: [1] });

/** Soon enough for a test. */
const quickProbes = { limits: { probeIntervalMs: 5 } };

Deno.test("a client that leaves before the answer aborts its prompts once each", () =>
  withServer(quickProbes, async (harness) => {
    const { service } = harness;
    service.generate = beginAndHang;
    const body = { prompt: ["a", "b"] };
    const connection = await connect(harness, request("/v1/completions", body));
    await until(() => service.requests.length === 2);
    connection.close();
    await until(() => service.aborted.length > 0);
    assert.deepEqual(service.aborted, service.requests.map((it) => it.requestId));
  }));

Deno.test("a client that leaves while its request waits for an instance aborts it at once", () =>
  withServer({ ...quickProbes, options: { maxQueuedRequests: 1 } }, async (harness) => {
    const { service, post } = harness;
    const gate = Promise.withResolvers<void>();
    service.admit = () => gate.promise;
    const connection = await connect(harness, request("/generate", { prompt: "a" }));
    await until(() => service.requests.length === 1);
    connection.close();
    await until(() => service.aborted.length === 1);
    service.admit = () => {};
    assert.equal((await post("/generate", { prompt: "b" })).status, 200);
    gate.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(service.aborted, [service.requests[0].requestId]);
  }));

Deno.test("a client that leaves in mid-stream aborts once and is logged as 499", () =>
  withServer({ ...quickProbes, options: { disableLogRequestsServer: false } }, async (harness) => {
    const { service, log } = harness;
    service.generate = beginAndHang;
    const body = { prompt: "a", stream: true };
    const connection = await connect(harness, request("/v1/completions", body));
    await readUntil(connection, "begun");
    connection.close();
    await until(() => log.length === 1);
    assert.deepEqual(service.aborted, [service.requests[0].requestId]);
    assert.match(log[0], /"status":499/);
  }));

Deno.test("a client that half-closes its connection after its request is answered", () =>
  withServer(quickProbes, async (harness) => {
    const { service } = harness;
    for (const stream of [false, true]) {
      for (const path of ["/generate", "/v1/completions"]) {
        service.generate = (request, emit) =>
          setTimeout(() => speak(["Hi", "!"])(request, emit), 30);
        const connection = await connect(harness, request(path, { prompt: "a", stream }));
        await connection.closeWrite();
        const answer = await readAll(connection);
        assert.match(answer, /HTTP\/1.1 200 OK\r\n[^]*!"/);
      }
    }
    assert.deepEqual(service.aborted, []);
  }));

Deno.test("a body that ends early by a half-closed connection is refused", () =>
  withServer({}, async (harness) => {
    for (const wait of [0, 20]) {
      const text = request("/generate", { prompt: "a" }).slice(0, -3);
      const connection = await connect(harness, text);
      await new Promise((resolve) => setTimeout(resolve, wait));
      await connection.closeWrite();
      const answer = await readAll(connection);
      assert.match(answer, /HTTP\/1.1 400 Bad Request[^]*The request body is incomplete/);
    }
  }));

Deno.test("places of aborted and finished requests are given back", () =>
  withServer({ ...quickProbes, options: { maxQueuedRequests: 1 } }, async (harness) => {
    const { service, post } = harness;
    for (let round = 1; round <= 3; round++) {
      service.generate = beginAndHang;
      const body = { prompt: "a", stream: true };
      const connection = await connect(harness, request("/v1/completions", body));
      await readUntil(connection, "begun");
      connection.close();
      await until(() => service.aborted.length === round);
      service.generate = speak(["x"]);
      assert.equal((await post("/generate", { prompt: "a" })).status, 200);
    }
  }));

/** What the log says of a client that did not read; the group is the bytes that it left. */
const cutLine =
  /^disconnected a client that did not read its answer {"client":"127.0.0.1","path":"\/v1\/completions","unreadBytes":(\d+),/;

Deno.test("a client that never reads is disconnected, its request aborted", () =>
  withServer({ limits: { maxUnreadBytes: 100_000 } }, async (harness) => {
    const { service } = harness;
    let emitted = 0;
    let stopped = false;
    service.generate = (_request, emit) => {
      const next = () => {
        emit({ text: "x".repeat(10_000), tokenIds: [1] });
        emitted += 10_000;
        if (service.aborted.length === 0 && !stopped) setImmediate(next);
      };
      next();
    };
    const body = { prompt: "a", stream: true };
    const connection = await connect(harness, request("/v1/completions", body));
    await until(() => service.aborted.length === 1).finally(() => stopped = true);
    // The kernel's socket buffers take some megabytes before anything is unread here.
    assert.ok(emitted < 50_000_000, `${emitted} characters were produced`);
    await until(() => harness.log.length > 0);
    assert.match(harness.log[0], cutLine);
    assert.ok(Number(cutLine.exec(harness.log[0])![1]) > 100_000);
    connection.close();
  }));

Deno.test("a client that does not take the end of its answer is disconnected", () =>
  withServer({
    options: { disableLogRequestsServer: false },
    limits: { drainTimeoutMs: 100, maxUnreadBytes: 100_000_000 },
  }, async (harness) => {
    harness.service.generate = speak(["x".repeat(20_000_000)]);
    for (const stream of [true, false]) {
      const body = { prompt: "a", stream };
      const connection = await connect(harness, request("/v1/completions", body));
      await until(() => harness.log.length === 2);
      assert.match(harness.log[0], cutLine);
      assert.match(harness.log[1], /"status":499/);
      harness.log.length = 0;
      connection.close();
    }
  }));

Deno.test("unread answers of all clients are bounded: the oldest is cut off", () =>
  withServer({
    options: { disableLogRequestsServer: false },
    limits: { drainTimeoutMs: ENDLESS_MS, maxUnreadAnswerBytes: 50_000_000 },
  }, async (harness) => {
    harness.service.generate = speak(["x".repeat(20_000_000)]);
    const asked = request("/v1/completions", { prompt: "a" });
    const connections = [await connect(harness, asked), await connect(harness, asked)];
    await until(() => harness.service.requests.length === 2);
    // One that reads is not in the way of others.
    assert.equal((await harness.post("/v1/completions", { prompt: "a" })).status, 200);
    connections.push(await connect(harness, asked));
    await until(() => harness.log.some((line) => cutLine.test(line)));
    const [first, ...others] = await Promise.all(
      connections.map((connection) => connection.read(new Uint8Array(1)).catch(() => null)),
    );
    assert.ok(others.every((bytes) => bytes === 1), `${first}, ${others}`);
    assert.equal(harness.log.filter((line) => cutLine.test(line)).length, 1);
    for (const connection of connections) connection.close();
  }));

Deno.test("a client of /generate that is behind skips documents and misses no text", () =>
  withServer({ limits: { maxUnreadBytes: 8_000_000 } }, async (harness) => {
    const { service } = harness;
    const count = 300;
    const sent = Promise.withResolvers<void>();
    service.generate = (_request, emit) => {
      const next = (index: number) => {
        const isLast = index === count;
        const finish = { reason: "stop" as const, stopReason: null };
        emit({ text: "y".repeat(1000), tokenIds: [1], ...(isLast ? { finish } : {}) });
        if (isLast) sent.resolve();
        else setImmediate(() => next(index + 1));
      };
      next(1);
    };
    const response = await fetch(`${harness.url}/generate`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", stream: true }),
    });
    await sent.promise;
    const documents = (await response.text()).split("\0").slice(0, -1);
    assert.deepEqual(JSON.parse(documents.at(-1)!), { text: ["a" + "y".repeat(1000 * count)] });
    assert.ok(documents.length < count, `${documents.length} documents`);
  }));

Deno.test("silent connections, half-sent headers and half-sent bodies end in 408", () =>
  withServer({ limits: { headerTimeoutMs: 150, requestTimeoutMs: 300 } }, async (harness) => {
    const answers = await Promise.all([
      "",
      "POST /generate HTTP/1.1\r\nHost: x\r\nX-Unfinished",
      "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ].map(async (text) => readAll(await connect(harness, text))));
    for (const answer of answers) {
      assert.match(answer, /^HTTP\/1.1 408 Request Timeout\r\n/);
      assert.match(
        answer,
        /"The request did not arrive in time: its headers may take 0.15 s, and all of it 0.3 s\. Send/,
      );
    }
  }));

Deno.test("over TLS, connections without a handshake end at a time limit, and hold up no shutdown", async () => {
  const directory = Deno.makeTempDirSync();
  const options = { sslCertfile: `${directory}/c.pem`, sslKeyfile: `${directory}/k.pem` };
  Deno.writeTextFileSync(options.sslCertfile, certificate);
  Deno.writeTextFileSync(options.sslKeyfile, privateKey);
  const tls = new Uint8Array([0x16, 3, 1, 0, 200, 1]); // the beginning of a ClientHello
  try {
    const limits = { headerTimeoutMs: 200, requestTimeoutMs: 400 };
    await withServer({ options, limits }, async ({ server }) => {
      for (const said of [new Uint8Array(), tls]) {
        using connection = await Deno.connect(server.address);
        await connection.write(said);
        const end = connection.read(new Uint8Array(64)).catch(() => null);
        assert.equal(await within(end, "the connection ends"), null);
      }
    });
    const held: Deno.Conn[] = [];
    const patient = { headerTimeoutMs: ENDLESS_MS, requestTimeoutMs: ENDLESS_MS };
    await withServer({ options, limits: patient }, async ({ server }) => {
      held.push(await Deno.connect(server.address));
      held.push(
        await Deno.connectTls({ ...server.address, hostname: "localhost", caCerts: [certificate] }),
      );
    }); // which ends once the server has shut down
    for (const connection of held) connection.close();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a running stream outlives the time that a request may take to arrive", async () => {
  // On a busy machine the request may take longer to arrive than the first of these.
  for (const requestTimeoutMs of [100, 1_000, 10_000]) {
    const limits = { headerTimeoutMs: requestTimeoutMs, requestTimeoutMs };
    let status = 0;
    await withServer({ limits }, async (harness) => {
      harness.service.generate = (_request, emit) => {
        emit({ text: "slow ", tokenIds: [1] });
        const finish = { reason: "stop" as const, stopReason: null };
        setTimeout(() => emit({ text: "end", tokenIds: [2], finish }), 2 * requestTimeoutMs);
      };
      const answer = await harness.post("/generate", { prompt: "a", stream: true });
      status = answer.status;
      if (status !== 408) assert.match(answer.text, /slow end/);
    });
    if (status !== 408) return;
  }
  assert.fail("a request did not arrive within 10 s");
});

Deno.test("idle connections are closed", () =>
  withServer({ limits: { idleTimeoutMs: 100 } }, async (harness) => {
    const connection = await connect(harness, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert.match(await readAll(connection), /^HTTP\/1.1 200 OK/);
  }));

Deno.test("what is no HTTP and headers without end are refused", () =>
  withServer({ limits: { maxHeaderBytes: 4096 } }, async (harness) => {
    const garbage = await readAll(await connect(harness, "\x16\x03\x01\x02\x00 hello\r\n\r\n"));
    assert.match(
      garbage,
      /^HTTP\/1.1 400 Bad Request[^]*This is not an HTTP\/1.1 request: \w.* begins with http:/,
    );
    const endless = `GET /health HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(10_000)}\r\n\r\n`;
    const answer = await readAll(await connect(harness, endless));
    assert.match(answer, /^HTTP\/1.1 431 Request Header Fields Too Large/);
    assert.match(answer, /headers are larger than 4096 bytes together. Send a shorter URL/);
  }));

Deno.test("more connections than allowed are closed at once", () =>
  withServer({ limits: { maxConnections: 2 } }, async (harness) => {
    const held = [await connect(harness, ""), await connect(harness, "")];
    const third = await Deno.connect(harness.server.address);
    assert.equal(await readAll(third), "");
    for (const connection of held) connection.close();
  }));

Deno.test("requests pipelined on one connection are answered in order", () =>
  withServer({}, async (harness) => {
    const text = request("/generate", { prompt: "1" }) + request("/generate", { prompt: "2" }) +
      "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const answer = await readAll(await connect(harness, text));
    assert.match(answer, /\["1Hello, world"\][^]*\["2Hello, world"\][^]*"1.2.3"/);
  }));

Deno.test("a client that pipelines requests and reads no answers is disconnected", () =>
  withServer({ limits: { maxPipelined: 3 } }, async (harness) => {
    const { service, log } = harness;
    service.generate = beginAndHang;
    const text = request("/generate", { prompt: "a", stream: true });
    const connection = await connect(harness, text.repeat(20));
    await readAll(connection);
    await until(() => service.aborted.length === 3);
    assert.equal(service.requests.length, 3);
    assert.deepEqual(log, [
      "disconnected a client that sends more requests on a connection than it reads answers " +
      '{"client":"127.0.0.1","requests":3}',
    ]);
    // One that reads may go on for ever.
    service.generate = speak(["x"]);
    using patient = await Deno.connect(harness.server.address);
    for (let i = 0; i < 10; i++) {
      await patient.write(encoder.encode(text));
      await readUntil(patient, "\r\n0\r\n\r\n");
    }
  }));

Deno.test("a chunk whose extension has no end is cut off, and tiny chunks are not", () =>
  withServer({}, async (harness) => {
    const head = "POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    const connection = await connect(harness, `${head}1;`);
    const extension = encoder.encode("a".repeat(65_536));
    const sending = (async () => {
      for (let i = 0; i < 1_000; i++) await connection.write(extension);
    })();
    await assert.rejects(within(sending, "the connection is closed"));
    connection.close();
    assert.match(
      harness.log[0],
      /^disconnected a client whose request body is hardly anything but/,
    );

    const body = `{"prompt":"a"${" ".repeat(30_000)}}`;
    const chunks = [...body].map((character) => `1\r\n${character}\r\n`).join("");
    const end = "0\r\n\r\n";
    const close = head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    const answer = await readAll(await connect(harness, close + chunks + end));
    assert.match(answer, /^HTTP\/1.1 200 OK/);
  }));

Deno.test("a client that leaves aborts all that it pipelined, and all is logged as 499", () =>
  withServer({ ...quickProbes, options: { disableLogRequestsServer: false } }, async (harness) => {
    const { service, log } = harness;
    for (const stream of [false, true]) {
      service.requests.length = service.aborted.length = log.length = 0;
      service.generate = beginAndHang;
      const text = request("/generate", { prompt: "a", stream });
      const connection = await connect(harness, text.repeat(3));
      await until(() => service.requests.length === 3);
      connection.close();
      await until(() => log.length === 3);
      assert.deepEqual(service.aborted, service.requests.map((it) => it.requestId));
      for (const line of log) assert.match(line, /"status":499/);
    }
  }));

Deno.test("a second Host, and codings other than chunked, are refused, and the connection closed", () =>
  withServer({}, async (harness) => {
    const body = '{"prompt":"a"}', chunk = `e\r\n${body}\r\n0\r\n\r\n`;
    const post = (...headers: string[]) =>
      `POST /generate HTTP/1.1\r\n${headers.map((header) => `${header}\r\n`).join("")}\r\n`;
    const length = `Content-Length: ${body.length}`, chunked = "Transfer-Encoding: chunked";
    const refused: [text: string, status: number, message: RegExp][] = [
      [post("Host: x", "Host: y", length) + body, 400, /several Host headers/],
      [post("Host: x", "host: x", length) + body, 400, /several Host headers/],
      [post("Host: x", "Transfer-Encoding: gzip, chunked") + chunk, 501, /gzip, chunked is not/],
      [post("Host: x", chunked, chunked) + chunk, 400, /is not an HTTP\/1.1 request/],
      [post("Host: x", "Transfer-Encoding: gzip"), 501, /: gzip is not supported/],
      [post("Host: x", chunked, length) + chunk, 400, /is not an HTTP\/1.1 request/],
    ];
    for (const [text, status, message] of refused) {
      const answer = await readAll(await connect(harness, text));
      assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `), text);
      assert.match(answer, /^connection: close\r$/mi, text);
      assert.match(answer, message, text);
    }
    assert.deepEqual(harness.service.requests, []);
    const accepted = post("Host: x", "Transfer-Encoding: Chunked", "Connection: close") + chunk;
    assert.match(await readAll(await connect(harness, accepted)), /^HTTP\/1.1 200 OK/);
  }));

Deno.test("an offer to upgrade to HTTP/2 is passed over", () =>
  withServer({}, async (harness) => {
    const json = JSON.stringify({ prompt: "a" });
    const text = "POST /generate HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n" +
      "Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n" +
      `Content-Type: application/json\r\nContent-Length: ${json.length}\r\n\r\n${json}`;
    const connection = await connect(harness, text);
    await readUntil(connection, "aHello, world");
    connection.close();
  }));

Deno.test("more connections than there are file descriptors do not make the server deaf", async () => {
  const script = new URL("./_burst_server.ts", import.meta.url).pathname;
  const command = `ulimit -n 400; exec "${Deno.execPath()}" run -A --no-lock "${script}"`;
  await using child = new Deno.Command("sh", {
    args: ["-c", command],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream())[Symbol.asyncIterator]();
  let said = "";
  while (!/port \d+\n/.test(said)) said += (await lines.next()).value;
  const port = Number(/port (\d+)/.exec(said)![1]);
  const opening = Array.from({ length: 450 }, () => Deno.connect({ hostname: "127.0.0.1", port }));
  const connections = await Promise.all(opening);
  await child.stdin.getWriter().write(new Uint8Array(1));
  // Those beyond the bound are closed by the server, the others stay open.
  const buffers = connections.map((connection) => connection.read(new Uint8Array(1)));
  const isClosed = (bytes: number | null) => bytes === null;
  await Promise.any(buffers.map((bytes) => bytes.then((it) => assert.ok(isClosed(it)))));
  for (const connection of connections) connection.close();
  await Promise.allSettled(buffers);
  const signal = AbortSignal.timeout(PATIENCE_MS);
  assert.equal((await fetch(`http://127.0.0.1:${port}/health`, { signal })).status, 200);
  assert.match(said, /at most 144 connections/);
});

for (const sockets of ["own", "given"]) {
  Deno.test({
    name:
      `a server at ${sockets} sockets that ran out of file descriptors accepts connections again`,
    ignore: Deno.build.os !== "linux",
    async fn() {
      const script = new URL("./_full_server.ts", import.meta.url).pathname;
      const command =
        `ulimit -n 300; exec "${Deno.execPath()}" run -A --no-lock "${script}" ${sockets}`;
      await using child = new Deno.Command("sh", {
        args: ["-c", command],
        stdin: "piped",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      const lines = child.stdout.pipeThrough(new TextDecoderStream())[Symbol.asyncIterator]();
      const stdin = child.stdin.getWriter();
      let said = "";
      const saysNext = async (pattern: RegExp) => {
        while (!pattern.test(said)) {
          const { value, done } = await lines.next();
          assert.ok(!done, `it ended, and had said: ${said}`);
          said += value;
        }
        return pattern.exec(said)!;
      };
      const port = (await saysNext(/port (\d+)\n/))[1];
      const health = async () => {
        using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
        const signal = AbortSignal.timeout(PATIENCE_MS);
        const response = await fetch(`http://127.0.0.1:${port}/health`, { client, signal });
        await response.text();
        return response.status;
      };
      assert.equal(await health(), 200);
      await stdin.write(new Uint8Array(1));
      await saysNext(/full\n/);
      // The kernel takes the connection and the server cannot, once no earlier one gives a descriptor back.
      const isWaiting = saysNext(/waiting\n/).then(() => true);
      let waiting = health();
      for (let i = 0; !await Promise.race([isWaiting, waiting.then(() => false)]); i++) {
        assert.ok(i < 20, `the server accepts connections without a descriptor: ${said}`);
        waiting = health();
      }
      await stdin.write(new Uint8Array(1));
      await saysNext(/free\n/);
      assert.deepEqual([await waiting, await health()], [200, 200], said);
    },
  });
}
