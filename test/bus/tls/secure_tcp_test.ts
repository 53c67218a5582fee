/** Who gets in over TCP: those that have the cluster's key, and nobody else. */
import assert from "node:assert/strict";
import { linuxLibC } from "../../../ffi/libc.ts";
import { nameSymbol, ownDescriptors, tcpPort } from "../../../ffi/socket_names.ts";
import { defaultBusLimits } from "../../../src/bus/bus.ts";
import { SocketBus } from "../../../src/bus/socket_bus.ts";
import type { ClusterKey } from "../../../src/bus/tcp.ts";
import { makeCredentials, TLS_NAME } from "../../../src/bus/tls/authority.ts";
import type { AnyPeer } from "../../../src/bus/transport.ts";
import { anyProtocol, rejection, until } from "../../conformance/bus.ts";
import { within } from "../../patience.ts";
import { PATIENCE_MS } from "../../patience.ts";

const key = crypto.getRandomValues(new Uint8Array(32));
const otherKey = crypto.getRandomValues(new Uint8Array(32));
const busOf = (clusterKey: ClusterKey | null, version = anyProtocol.version) =>
  new SocketBus({ ...anyProtocol, version }, defaultBusLimits, clusterKey);

interface Place {
  readonly address: string;
  readonly port: number;
  readonly connected: AnyPeer[];
}

/** A listener with a key, which serves a peer that has it to the end. */
async function withListener(
  clusterKey: ClusterKey,
  body: (place: Place) => Promise<void>,
): Promise<void> {
  const connected: AnyPeer[] = [];
  const listener = await busOf(clusterKey).listen("tcp:127.0.0.1:0", {
    calls: { echo: (message) => message },
    onConnect: (peer) => connected.push(peer),
  });
  const good = await busOf(clusterKey).connect(listener.address, {});
  await until(() => connected.length === 1);
  try {
    await body({
      address: listener.address,
      port: Number(listener.address.split(":")[2]),
      connected,
    });
    assert.equal((await good.call("echo", { data: 1 })).data, 1, "others are served");
    assert.equal(connected.length, 1, "nobody else got in");
  } finally {
    await good.close();
    await listener.close();
  }
}

Deno.test("the authority of a key is the same everywhere, and another key has another", async () => {
  const [first, second, other] = await Promise.all([key, key, otherKey].map(makeCredentials));
  assert.equal(first.authority, second.authority);
  assert.notEqual(first.certificate, second.certificate);
  assert.notEqual(first.authority, other.authority);
});

Deno.test("another cluster's key is refused, and so is its certificate", () =>
  withListener(key, async ({ address }) => {
    const error = await rejection(busOf(otherKey).connect(address, {}));
    assert.equal(error.kind, "usage");
    assert.match(
      error.message,
      /^tcp:.*: its certificate is of another cluster: give all .*--cluster-key-file/,
    );
  }));

const libc = linuxLibC({
  getsockname: nameSymbol,
  getpeername: nameSymbol,
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
});

/** Whether TCP_NODELAY (netinet/tcp.h) is set, for each connection that this process accepted at a port. */
function noDelays(port: number): boolean[] {
  const c = libc()!;
  const accepted = ownDescriptors().filter((fd) =>
    tcpPort(c.getsockname, fd) === port && tcpPort(c.getpeername, fd) !== null
  );
  return accepted.map((fd) => {
    const value = new Int32Array(1);
    const bytes = new Uint8Array(value.buffer);
    assert.equal(c.getsockopt(fd, 6, 1, bytes, new Uint8Array(Int32Array.of(4).buffer)), 0);
    return value[0] !== 0;
  });
}

Deno.test({
  name: "small messages of the accepting end do not wait for each other's acknowledgement",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withListener(key, ({ port }) => Promise.resolve(assert.deepEqual(noDelays(port), [true]))),
});

Deno.test("without a key nothing is bound or connected", async () => {
  for (
    const attempt of [
      busOf(null).listen("tcp:127.0.0.1:0", {}),
      busOf(null).connect("tcp:127.0.0.1:1", {}),
    ]
  ) {
    assert.match((await rejection(attempt)).message, /needs a key that all of them have: .*keygen/);
  }
});

Deno.test("a plain client at the TLS port is closed, and a TLS client at a plain port is told", async () => {
  await withListener(key, async ({ address }) => {
    const error = await rejection(
      busOf("insecure").connect(address, {}, { timeoutMs: PATIENCE_MS }),
    );
    assert.match(error.message, /cannot connect to tcp:|closed|greet/);
  });
  await withListener("insecure", async ({ address }) => {
    const error = await rejection(busOf(key).connect(address, {}, { timeoutMs: PATIENCE_MS }));
    assert.match(error.message, /it does not speak TLS: .*--cluster-insecure/);
  });
});

Deno.test("another version of the protocol is refused inside TLS too, and both are named", () =>
  withListener(key, async ({ address }) => {
    const error = await rejection(busOf(key, 6).connect(address, {}));
    assert.match(error.message, /speaks version 7 of the bus protocol, and this end version 6/);
  }));

/** A TLS connection of one who knows the authority, which is no secret, and says what it likes. */
class TlsRogue {
  #buffer = new Uint8Array(0);

  private constructor(readonly conn: Deno.TlsConn) {}

  static async connect(port: number): Promise<TlsRogue> {
    const { authority } = await makeCredentials(key);
    const tcp = await Deno.connect({ hostname: "127.0.0.1", port });
    const conn = await Deno.startTls(tcp, { hostname: TLS_NAME, caCerts: [authority] });
    const rogue = new TlsRogue(conn);
    await rogue.say(["llumnix", anyProtocol.version]);
    assert.deepEqual(await rogue.hear(), ["llumnix", anyProtocol.version]);
    return rogue;
  }

  async say(words: unknown): Promise<void> {
    const json = new TextEncoder().encode(JSON.stringify(words));
    const frame = new Uint8Array(8 + json.length);
    new DataView(frame.buffer).setUint32(0, json.length, true);
    new DataView(frame.buffer).setUint32(4, 0xffffffff, true);
    frame.set(json, 8);
    await this.conn.write(frame);
  }

  /** Null when the other end has closed. */
  async hear(): Promise<unknown[] | null> {
    for (;;) {
      const length = this.#buffer.length < 8
        ? Infinity
        : 8 + new DataView(this.#buffer.buffer).getUint32(0, true);
      if (this.#buffer.length >= length) {
        const json = new TextDecoder().decode(this.#buffer.subarray(8, length));
        this.#buffer = this.#buffer.slice(length);
        return JSON.parse(json);
      }
      const chunk = new Uint8Array(4096);
      const count = await this.conn.read(chunk).catch(() => null);
      if (count === null) return null;
      const joined = new Uint8Array(this.#buffer.length + count);
      joined.set(this.#buffer);
      joined.set(chunk.subarray(0, count), this.#buffer.length);
      this.#buffer = joined;
    }
  }
}

Deno.test("no proof, a false one, and one that was seen before are refused", () =>
  withListener(key, async ({ port }) => {
    const nonce = crypto.getRandomValues(new Uint8Array(32)).toBase64();
    const answers: string[] = [];
    // What the listener proves of itself is of no use in the other direction, nor the next time.
    for (const proof of [null, "", nonce, "same", "seen"]) {
      const rogue = await TlsRogue.connect(port);
      await rogue.say(["prove", nonce]);
      const answer = await rogue.hear();
      assert.equal(answer![0], "proof");
      answers.push(String(answer![2]));
      const said = proof === "same" ? answer![2] : proof === "seen" ? answers[0] : proof;
      await rogue.say(["proof", said]);
      await rogue.say([[1, 1, "echo", "let me in"]]);
      assert.equal(await rogue.hear(), null, `${proof}`);
      rogue.conn.close();
    }
    const calls = await TlsRogue.connect(port);
    await calls.say([[1, 1, "echo", "let me in"]]);
    assert.equal(await calls.hear(), null);
    calls.conn.close();
    assert.equal(new Set(answers).size, answers.length, "nonces are fresh");
  }));

Deno.test("one with a certificate of the cluster's authority, but no key, is not trusted", async () => {
  const { certificate: cert, privateKey } = await makeCredentials(key);
  const listener = Deno.listenTls({ hostname: "127.0.0.1", port: 0, cert, key: privateKey });
  const serving = (async () => {
    const conn = await listener.accept();
    const greeting = new TextEncoder().encode(JSON.stringify(["llumnix", anyProtocol.version]));
    for (const words of [greeting, new TextEncoder().encode('["proof","bm9uY2U=","bm9uY2U="]')]) {
      const frame = new Uint8Array(8 + words.length);
      new DataView(frame.buffer).setUint32(0, words.length, true);
      new DataView(frame.buffer).setUint32(4, 0xffffffff, true);
      frame.set(words, 8);
      await conn.write(frame);
    }
    while (await conn.read(new Uint8Array(4096)).catch(() => null) !== null);
    conn.close();
  })();
  const address = `tcp:127.0.0.1:${listener.addr.port}`;
  const error = await rejection(busOf(key).connect(address, {}));
  assert.match(error.message, /the other end has another cluster key/);
  await serving;
  listener.close();
});

/** Reads all that comes, until the other end has closed the connection. */
async function readToEnd(connection: Deno.Conn): Promise<void> {
  const chunk = new Uint8Array(4096);
  while (await connection.read(chunk).catch(() => null) !== null);
}

Deno.test({
  name:
    "one that accepts the connection and says nothing: the attempt ends in time, and leaves none",
  ignore: Deno.build.os !== "linux",
  async fn() {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const address = `tcp:127.0.0.1:${listener.addr.port}`;
    const attempt = rejection(busOf(key).connect(address, {}, { timeoutMs: 300 }));
    using silent = await listener.accept();
    assert.match((await attempt).message, /it did not greet in time/);
    await within(readToEnd(silent), "the connection ends");
  },
});

Deno.test({
  name: "of strangers that connect and say nothing, the listener keeps no more than its bound",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withListener(key, async ({ port }) => {
      const connect = () => Deno.connect({ hostname: "127.0.0.1", port });
      const strangers = await Promise.all(Array.from({ length: 270 }, connect));
      // 256 may be greeting at once: one more ends the oldest.
      await within(Promise.race(strangers.map(readToEnd)), "one is ended");
      for (const stranger of strangers) stranger.close();
    }),
});
