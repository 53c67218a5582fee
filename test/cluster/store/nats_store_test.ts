import assert from "node:assert/strict";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, nkeys } from "@nats-io/transport-node";
import { openLeaseStore } from "../../../src/cluster/store/stores.ts";
import type { StoreCredentials } from "../../../src/cluster/store/store_kind.ts";
import {
  type LeaseStore,
  StoreAwayError,
  StoreRefusedError,
} from "../../../src/cluster/store/lease_store.ts";
import { CALL_TIMEOUT_MS, testLeaseStore } from "../../conformance/lease_store.ts";
import { makeCertificate } from "./certificate.ts";
import { freePorts } from "../../free_port.ts";
import { until } from "../../patience.ts";
import { findServer, pathOf, ServerProcess, whyMissing } from "./servers.ts";

const program = findServer("nats-server");
/** A JetStream cluster takes 4 to 9 s to elect, and more on a loaded machine: then calls take longer too. */
const CLUSTER_TIMEOUT_MS = 3_000;

/** Servers of one JetStream. */
class Nats {
  readonly servers: ServerProcess[];
  readonly #ports: number[];
  #isStarted = false;

  constructor(
    readonly directory: string,
    count: number,
    private readonly credentials: StoreCredentials = {},
  ) {
    this.#ports = freePorts(2 * count);
    const routes = this.#ports.filter((_, i) => i % 2 === 1)
      .map((port) => `nats-route://127.0.0.1:${port}`).join(",");
    this.servers = Array.from({ length: count }, (_, i) => {
      const config = join(directory, `s${i}.conf`);
      const cluster = ["--cluster_name", "test", "--cluster"];
      const peers = [`nats-route://127.0.0.1:${this.#ports[2 * i + 1]}`, "--routes", routes];
      return new ServerProcess(pathOf(program), [
        ...["--config", config, "--addr", "127.0.0.1", "--port", String(this.#ports[2 * i])],
        ...["--jetstream", "--store_dir", join(directory, `s${i}`), "--name", `s${i}`],
        ...(count > 1 ? [...cluster, ...peers] : []),
      ]);
    });
  }

  /** What the servers want of their clients, from their next start on. */
  require(config: string): void {
    this.servers.forEach((_, i) => {
      Deno.writeTextFileSync(join(this.directory, `s${i}.conf`), `${config}\n`);
    });
  }

  get url(): string {
    const ports = this.#ports.filter((_, i) => i % 2 === 0);
    return `nats://${ports.map((port) => `localhost:${port}`).join(",")}`;
  }

  get timeoutMs(): number {
    return this.servers.length > 1 ? CLUSTER_TIMEOUT_MS : CALL_TIMEOUT_MS;
  }

  async start(): Promise<void> {
    if (!this.#isStarted) { for (const server of this.servers) server.start(); }
    this.#isStarted = true;
    const { timeoutMs, credentials } = this;
    const store = await openLeaseStore(`${this.url}/probe`, { timeoutMs, credentials });
    for (;;) {
      const error = await store.get("leader").then(() => null, (error: Error) => error);
      if (!(error instanceof StoreAwayError)) {
        if (error !== null) throw error;
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await store.close();
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    for (const server of this.servers) await server.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.directory, { recursive: true });
  }
}

async function startNats(
  count: number,
  config = "",
  credentials?: StoreCredentials,
): Promise<Nats> {
  const directory = await Deno.makeTempDir({ prefix: "llumnix-nats-" });
  const nats = new Nats(directory, count, credentials);
  nats.require(config);
  await nats.start();
  return nats;
}

for (const count of [1, 3]) {
  let shared: Promise<Nats> | null = null;
  let numWorlds = 0;
  testLeaseStore({
    name: `nats, ${count === 1 ? "one server" : "three servers"}`,
    // A cluster that starts again elects for seconds each time.
    faults: count === 1 ? ["stop", "silence"] : [],
    // Server 2.9 compares before it replicates, and not again after.
    mayAcknowledgeTwice: count > 1,
    missing: whyMissing(program),
    async open() {
      const nats = await (shared ??= startNats(count));
      await nats.start();
      const url = `${nats.url}/test-${++numWorlds}`;
      const stores: LeaseStore[] = [];
      return {
        async open() {
          const store = await openLeaseStore(url, { timeoutMs: nats.timeoutMs });
          stores.push(store);
          return store;
        },
        stop: () => nats.stop(),
        start: () => nats.start(),
        silence: async () => {
          await Promise.all(nats.servers.map((server) => server.silence()));
        },
        unsilence: () => Promise.resolve(nats.servers.forEach((server) => server.unsilence())),
        async [Symbol.asyncDispose]() {
          for (const store of stores) await store.close();
        },
      };
    },
  });
  Deno.test.afterAll(async () => {
    await (await shared)?.[Symbol.asyncDispose]();
  });
}

async function temporaryFiles(texts: Record<string, string>) {
  const directory = await Deno.makeTempDir({ prefix: "llumnix-nats-" });
  const path = (name: string) => join(directory, name);
  for (const [name, text] of Object.entries(texts)) await Deno.writeTextFile(path(name), text);
  return {
    path,
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}

function test(title: string, fn: () => Promise<void>): void {
  const missing = whyMissing(program);
  const name = `lease store nats: ${title}${missing === null ? "" : ` (${missing})`}`;
  Deno.test({ name, ignore: missing !== null, fn });
}

/** Passes connections on to a server, and lets nothing more through on those that are frozen. */
class SlowNetwork implements AsyncDisposable {
  readonly frozen = new Set<number>();
  numConnections = 0;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #serving: Promise<void>;

  constructor(private readonly port: number) {
    this.#serving = this.#serve();
  }

  get url(): string {
    return `nats://127.0.0.1:${(this.#listener.addr as Deno.NetAddr).port}`;
  }

  async #serve(): Promise<void> {
    for await (const near of this.#listener) {
      const index = this.numConnections++;
      const far = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
      for (const [from, to] of [[near, far], [far, near]]) {
        this.#open.add(from);
        this.#pass(index, from, to).catch(() => {}).finally(() => this.#close(from));
      }
    }
  }

  async #pass(index: number, from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(1 << 16);
    for (;;) {
      const count = await from.read(buffer);
      if (count === null) return this.#close(to);
      if (this.frozen.has(index)) continue;
      for (let sent = 0; sent < count;) sent += await to.write(buffer.subarray(sent, count));
    }
  }

  #close(conn: Deno.Conn): void {
    if (this.#open.delete(conn)) conn.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#open) this.#close(conn);
    await this.#serving;
  }
}

test("a connection through which nothing comes holds up no call", async () => {
  await using nats = await startNats(1);
  await using proxy = new SlowNetwork(Number(nats.url.split(":").at(-1)));
  const store = await openLeaseStore(`${proxy.url}/far`, { timeoutMs: CALL_TIMEOUT_MS });
  const first = await store.set("leader", "1", 0);
  await until(() => proxy.numConnections === 2, "the second connection");
  await store.get("leader");
  proxy.frozen.add(0);
  assert.deepEqual(await store.get("leader"), { key: "leader", value: "1", revision: first });
  assert.ok(await store.set("leader", "2", first!));
  await store.close();
});

test("credentials that the server refuses after it has started again are named", async () => {
  const right = { token: "right" };
  await using nats = await startNats(1, `authorization { token: "right" }`, right);
  const open = (credentials: StoreCredentials) =>
    openLeaseStore(`${nats.url}/tokens`, { timeoutMs: CALL_TIMEOUT_MS, credentials });
  const store = await open(right);
  const first = await store.set("leader", "1", 0);
  for (const credentials of [{}, { token: "wrong" }, { user: "u", password: "p" }]) {
    const other = await open(credentials);
    await assert.rejects(other.get("leader"), (error) => {
      assert.ok(error instanceof StoreRefusedError, String(error));
      return /^NATS refuses these credentials, or wants some: .*; see --cluster-credentials$/.test(
        error.message,
      );
    });
    await other.close();
  }
  await nats.stop();
  nats.require(`authorization { token: "other" }`);
  nats.servers[0].start();
  for (;;) {
    const error = await store.get("leader").then(() => null, (error: Error) => error);
    assert.ok(error !== null, "it still answers");
    if (error instanceof StoreRefusedError) break;
    assert.ok(error instanceof StoreAwayError, `${error.name}: ${error.message}`);
  }
  // The token of before counts again.
  await nats.stop();
  nats.require(`authorization { token: "right" }`);
  await nats.start();
  for (;;) {
    const entry = await store.get("leader").catch(() => null);
    if (entry === null) continue;
    assert.deepEqual(entry, { key: "leader", value: "1", revision: first });
    break;
  }
  await store.close();
});

test("TLS and an nkey: others are refused", async () => {
  const { certificate, privateKey } = await makeCertificate();
  const key = nkeys.createUser();
  const nkeySeed = new TextDecoder().decode(key.getSeed());
  await using files = await temporaryFiles({ "cert.pem": certificate, "key.pem": privateKey });
  const config = `
    tls { cert_file: "${files.path("cert.pem")}", key_file: "${files.path("key.pem")}" }
    authorization { users: [{ nkey: ${key.getPublicKey()} }] }`;
  const right = { nkeySeed, authority: certificate };
  await using nats = await startNats(1, config, right);
  const answer = async (credentials: StoreCredentials) => {
    const options = { timeoutMs: CALL_TIMEOUT_MS, credentials };
    const store = await openLeaseStore(`${nats.url}/secure`, options);
    try {
      return await store.set("leader", "1", 0) === null ? "conflict" : "written";
    } catch (error) {
      return (error as Error).name;
    } finally {
      await store.close();
    }
  };
  assert.equal(await answer(right), "written");
  const other = new TextDecoder().decode(nkeys.createUser().getSeed());
  assert.equal(await answer({ nkeySeed: other, authority: certificate }), "StoreRefusedError");
  const { certificate: unknown } = await makeCertificate();
  assert.match(await answer({ nkeySeed, authority: unknown }), /^Store(Away|Refused)Error$/);
  assert.match(await answer({ nkeySeed }), /^Store(Away|Refused)Error$/);
  await assert.rejects(
    openLeaseStore("nats://127.0.0.1", { credentials: { authority: certificate } }),
    /TLS needs the servers' host names.* in place of 127\.0\.0\.1:4222/,
  );
});

test("a bucket that must exist is not made", async () => {
  await using nats = await startNats(1);
  const open = (mustExist: boolean) =>
    openLeaseStore(`${nats.url}/typo`, { timeoutMs: CALL_TIMEOUT_MS, mustExist });
  const first = await open(true);
  for (let i = 0; i < 2; i++) {
    await assert.rejects(first.get("leader"), (error) => {
      assert.ok(error instanceof StoreRefusedError, String(error));
      return /^this NATS server has no bucket llumnix-typo: no process/.test(error.message);
    });
  }
  await first.close();
  const maker = await open(false);
  await maker.set("leader", "1", 0);
  await maker.close();
  const last = await open(true);
  assert.equal((await last.get("leader"))?.value, "1");
  assert.equal(await last.set("leader", "2", (await last.get("leader"))!.revision) !== null, true);
  await last.close();
});

test("a stream of another program with the bucket's name is named", async () => {
  await using nats = await startNats(1);
  const connection = await connect({ servers: nats.url.replace("nats://", "") });
  const manager = await jetstreamManager(connection);
  await manager.streams.add({ name: "KV_llumnix-blue", subjects: ["other.>"] });
  await connection.close();
  const store = await openLeaseStore(`${nats.url}/blue`, { timeoutMs: CALL_TIMEOUT_MS });
  await assert.rejects(store.get("leader"), (error) => {
    assert.ok(error instanceof StoreRefusedError, String(error));
    return /stream KV_llumnix-blue .* subjects are other\.>, .* another name$/.test(error.message);
  });
  await store.close();
});

test("a server without JetStream is named", async () => {
  const [port] = freePorts(1);
  const server = new ServerProcess(pathOf(program), [
    "--addr",
    "127.0.0.1",
    "--port",
    String(port),
  ]);
  server.start();
  const store = await openLeaseStore(`nats://127.0.0.1:${port}`, { timeoutMs: CALL_TIMEOUT_MS });
  try {
    for (;;) {
      const error = await store.get("leader").then(() => null, (error: Error) => error);
      assert.ok(error instanceof StoreAwayError, String(error));
      if (
        /^this NATS server has no JetStream now.*start it with --jetstream$/.test(error.message)
      ) break;
    }
  } finally {
    await store.close();
    await server.stop();
  }
});

Deno.test("lease store nats: a server that is too old is named", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    for await (const conn of listener) greet(conn).catch(() => {}); // until the client has gone
  })();
  const { port } = listener.addr as Deno.NetAddr;
  const store = await openLeaseStore(`nats://127.0.0.1:${port}`, { timeoutMs: CALL_TIMEOUT_MS });
  try {
    await assert.rejects(store.get("leader"), (error) => {
      assert.ok(error instanceof StoreRefusedError, String(error));
      return error.message === "this NATS server is of version 2.8.4: expected 2.9 or later";
    });
  } finally {
    await store.close();
    listener.close();
    await serving;
  }
});

/** Says what a server says, and answers pings, until the client closes the connection. */
async function greet(conn: Deno.Conn): Promise<void> {
  const say = (line: string) => conn.write(new TextEncoder().encode(`${line}\r\n`));
  await say(`INFO ${JSON.stringify({ version: "2.8.4", headers: true, max_payload: 1 << 20 })}`);
  for await (const bytes of conn.readable) {
    if (new TextDecoder().decode(bytes).includes("PING\r\n")) await say("PONG");
  }
}
