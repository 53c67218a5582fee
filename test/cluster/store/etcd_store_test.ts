import assert from "node:assert/strict";
import { join } from "node:path";
import { UsageError } from "../../../src/core/errors.ts";
import { openLeaseStore } from "../../../src/cluster/store/stores.ts";
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

const etcd = findServer("etcd");

/** Members of one etcd, which the tests of this file share: each test has a cluster name of its own. */
class Etcd {
  readonly members: ServerProcess[];
  readonly #ports: number[];
  #isStarted = false;

  constructor(private readonly directory: string, count: number) {
    this.#ports = freePorts(2 * count);
    const peers = Array.from(
      { length: count },
      (_, i) => `m${i}=http://127.0.0.1:${this.#ports[2 * i + 1]}`,
    );
    this.members = peers.map((peer, i) => {
      const [name, peerUrl] = peer.split("=");
      const clientUrl = `http://127.0.0.1:${this.#ports[2 * i]}`;
      return new ServerProcess(pathOf(etcd), [
        ...["--name", name, "--data-dir", join(directory, name)],
        ...["--listen-client-urls", clientUrl, "--advertise-client-urls", clientUrl],
        ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
        ...["--initial-cluster", peers.join(","), "--log-level", "error"],
        ...["--heartbeat-interval", "50", "--election-timeout", "500"],
      ]);
    });
  }

  get servers(): string {
    return this.#ports.filter((_, i) => i % 2 === 0).map((port) => `127.0.0.1:${port}`).join(",");
  }

  /** Waits until each member answers. */
  async start(): Promise<void> {
    if (!this.#isStarted) { for (const member of this.members) member.start(); }
    this.#isStarted = true;
    for (const server of this.servers.split(",")) {
      const store = await openLeaseStore(`etcd://${server}/probe`, { timeoutMs: CALL_TIMEOUT_MS });
      for (;;) {
        const error = await store.get("leader").then(() => null, (error: Error) => error);
        if (!(error instanceof StoreAwayError)) break;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await store.close();
    }
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    for (const member of this.members) await member.stop();
  }

  async post(path: string, body: unknown): Promise<void> {
    const base = `http://${this.servers.split(",")[0]}`;
    const response = await fetch(base + path, { method: "POST", body: JSON.stringify(body) });
    const text = await response.text();
    assert.ok(response.ok, `${path}: ${text}`);
  }

  /** From now on only this user may do anything. */
  async requireUser(name: string, password: string): Promise<void> {
    await this.post("/v3/auth/user/add", { name, password });
    await this.post("/v3/auth/role/add", { name: "root" }).catch(() => {});
    await this.post("/v3/auth/user/grant", { user: name, role: "root" });
    await this.post("/v3/auth/enable", {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.directory, { recursive: true });
  }
}

async function startEtcd(count: number): Promise<Etcd> {
  const etcd = new Etcd(await Deno.makeTempDir({ prefix: "llumnix-etcd-" }), count);
  await etcd.start();
  return etcd;
}

for (const count of [1, 3]) {
  let shared: Promise<Etcd> | null = null;
  let numWorlds = 0;
  testLeaseStore({
    name: `etcd, ${count === 1 ? "one member" : "three members"}`,
    // What three members do when they end or compact is no other than what one does.
    faults: count === 1 ? ["stop", "silence", "compact"] : ["stop"],
    missing: whyMissing(etcd),
    async open() {
      const server = await (shared ??= startEtcd(count));
      await server.start();
      const url = `etcd://${server.servers}/test-${++numWorlds}`;
      const stores: LeaseStore[] = [];
      return {
        async open() {
          const store = await openLeaseStore(url, { timeoutMs: CALL_TIMEOUT_MS });
          stores.push(store);
          return store;
        },
        stop: () => server.stop(),
        start: () => server.start(),
        silence: async () => {
          await Promise.all(server.members.map((member) => member.silence()));
        },
        unsilence: () => Promise.resolve(server.members.forEach((member) => member.unsilence())),
        compact: (revision) => server.post("/v3/kv/compaction", { revision: String(revision) }),
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

function test(title: string, fn: () => Promise<void>): void {
  const missing = whyMissing(etcd);
  const name = `lease store ${title}${missing === null ? "" : ` (${missing})`}`;
  Deno.test({ name, ignore: missing !== null, fn });
}

test("etcd: goes on with the other members when one ends, and names who refuses its user", async () => {
  await using server = await startEtcd(3);
  const url = `etcd://${server.servers}/users`;
  const open = (user?: string, password?: string) =>
    openLeaseStore(url, { timeoutMs: CALL_TIMEOUT_MS, credentials: { user, password } });
  const plain = await open();
  const first = await plain.set("leader", "1", 0);
  await server.members[0].stop();
  const answered = async (work: () => Promise<unknown>) => {
    for (;;) {
      const error = await work().then(() => null, (error: Error) => error);
      if (error === null) return;
      assert.ok(error instanceof StoreAwayError, `${error.name}: ${error.message}`);
    }
  };
  await answered(() => plain.get("leader"));
  let second = null as number | null;
  await answered(async () => {
    second = await plain.set("leader", "2", first!) ?? (await plain.get("leader"))!.revision;
  });
  server.members[0].start();
  await server.start();

  const user = await open("root", "right");
  await assert.rejects(user.get("leader"), /credentials.*not enabled/);
  await server.requireUser("root", "right");
  // What was refused is tried again after a pause.
  await until(() => user.get("leader").then(() => true, () => false), "the user counts");
  assert.equal((await user.get("leader"))?.value, "2");
  const watched = Promise.withResolvers<string | null>();
  const stop = user.watch("leader", second!, {
    onChange: ({ value }) => watched.resolve(value),
    onEnd: (error) => watched.reject(error),
  });
  await user.set("leader", "3", second!);
  assert.equal(await watched.promise, "3");
  stop();
  for (const wrong of [plain, await open("root", "wrong"), await open("nobody", "x")]) {
    await assert.rejects(wrong.get("leader"), (error) => {
      assert.ok(error instanceof StoreRefusedError, String(error));
      return /^etcd (refuses these credentials|wants a user and a password, and none are given): .*; see --cluster-credentials$/
        .test(error.message);
    });
    await wrong.close();
  }
  // The password changes: the token that this client has is void, and it cannot get another.
  const token = await fetch(`http://${server.servers.split(",")[1]}/v3/auth/authenticate`, {
    method: "POST",
    body: JSON.stringify({ name: "root", password: "right" }),
  }).then((response) => response.json());
  const change = await fetch(`http://${server.servers.split(",")[1]}/v3/auth/user/changepw`, {
    method: "POST",
    headers: { authorization: token.token },
    body: JSON.stringify({ name: "root", password: "other" }),
  });
  assert.ok(change.ok, await change.text());
  await assert.rejects(user.get("leader"), /^StoreRefusedError: etcd refuses these credentials: /);
  await user.close();
});

test("etcd: TLS, with certificates of the right authority only", async () => {
  const directory = await Deno.makeTempDir({ prefix: "llumnix-etcd-" });
  const { certificate, privateKey } = await makeCertificate();
  const { certificate: other } = await makeCertificate();
  const path = (name: string) => join(directory, name);
  await Deno.writeTextFile(path("cert.pem"), certificate);
  await Deno.writeTextFile(path("key.pem"), privateKey);
  const [port, peerPort] = freePorts(2);
  const member = new ServerProcess(pathOf(etcd), [
    ...["--data-dir", path("data"), "--log-level", "error"],
    ...["--listen-client-urls", `https://127.0.0.1:${port}`],
    ...["--advertise-client-urls", `https://localhost:${port}`],
    ...["--cert-file", path("cert.pem"), "--key-file", path("key.pem")],
    ...["--listen-peer-urls", `http://127.0.0.1:${peerPort}`],
    ...["--initial-advertise-peer-urls", `http://127.0.0.1:${peerPort}`],
    ...["--initial-cluster", `default=http://127.0.0.1:${peerPort}`],
  ]);
  const answer = async (authority?: string): Promise<string> => {
    const options = { timeoutMs: CALL_TIMEOUT_MS, credentials: { authority } };
    const store = await openLeaseStore(`etcd://localhost:${port}/secure`, options);
    try {
      const first = await store.set("leader", "1", 0);
      if (first === null) return "conflict";
      const watched = Promise.withResolvers<string | null>();
      store.watch("leader", first, {
        onChange: ({ value }) => watched.resolve(value),
        onEnd: (error) => watched.reject(error),
      });
      await store.set("leader", "2", first);
      return `watched ${await watched.promise}`;
    } catch (error) {
      return `${(error as Error).name}: ${(error as Error).message}`;
    } finally {
      await store.close();
    }
  };
  try {
    member.start();
    await until(async () => !/^StoreAwayError/.test(await answer(certificate)), "etcd answers");
    assert.equal(await answer(certificate), "conflict", "the first answer has written");
    assert.match(await answer(other), /^Store(Away|Refused)Error: .*certificate/i);
    assert.match(await answer(), /^Store(Away|Refused)Error: /);
  } finally {
    await member.stop();
    await Deno.remove(directory, { recursive: true });
  }
});

type Answer = object | Response | null;

/** Servers that answer as etcd does, except where a test says otherwise: null lets the caller wait for ever. */
class FakeMembers implements AsyncDisposable {
  /** By index of the member, in the order in which they came. */
  readonly calls: number[] = [];
  readonly #servers: Deno.HttpServer<Deno.NetAddr>[];
  readonly #open = new AbortController();

  constructor(
    count: number,
    answer: (member: number, numCalls: number, path: string) => Answer | Promise<Answer>,
  ) {
    this.#servers = Array.from(
      { length: count },
      (_, member) =>
        Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
          await request.text();
          const path = new URL(request.url).pathname;
          const body = await answer(member, this.calls.push(member), path);
          if (body !== null) return body instanceof Response ? body : Response.json(body);
          await new Promise((resolve) => this.#open.signal.addEventListener("abort", resolve));
          return new Response();
        }),
    );
  }

  get url(): string {
    return `etcd://${this.#servers.map(({ addr: { port } }) => `127.0.0.1:${port}`).join(",")}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#open.abort();
    for (const server of this.#servers) await server.shutdown();
  }
}

const empty = { header: { revision: "7" } };

Deno.test("lease store etcd: a call that is not answered is made again, at another member if there is one", async () => {
  for (const [count, expected] of [[1, [0, 0]], [2, [0, 1]]] as const) {
    await using members = new FakeMembers(count, (_, numCalls) => numCalls === 1 ? null : empty);
    const store = await openLeaseStore(members.url, { timeoutMs: 2 * CALL_TIMEOUT_MS });
    assert.deepEqual(await store.list("hosts/"), { entries: [], revision: 7 });
    assert.deepEqual(members.calls, expected);
    await store.close();
  }
});

Deno.test("lease store etcd: a call that is made again takes another connection, also with TLS", async () => {
  const { certificate: cert, privateKey: key } = await makeCertificate();
  const connections: number[] = [];
  const open = Promise.withResolvers<void>();
  const member = Deno.serve(
    { hostname: "127.0.0.1", port: 0, cert, key, onListen: () => {} },
    async (request, { remoteAddr }) => {
      await request.text();
      if (connections.push(remoteAddr.port) === 1) await open.promise;
      return Response.json(empty);
    },
  );
  const store = await openLeaseStore(`etcd://localhost:${member.addr.port}`, {
    timeoutMs: 2 * CALL_TIMEOUT_MS,
    credentials: { authority: cert },
  });
  try {
    assert.deepEqual(await store.list("hosts/"), { entries: [], revision: 7 });
    assert.equal(new Set(connections).size, 2);
  } finally {
    await store.close();
    open.resolve();
    await member.shutdown();
  }
});

Deno.test("lease store etcd: what no member answers is not asked for ever, and each is named once", async () => {
  await using members = new FakeMembers(1, () => null);
  const store = await openLeaseStore(members.url, { timeoutMs: 60 });
  const reason = `${members.url.replace("etcd", "http")}: no answer in 60 ms`;
  await assert.rejects(store.get("leader"), (error) => {
    assert.ok(error instanceof StoreAwayError);
    return error.message === `etcd does not answer: ${reason}`;
  });
  await store.close();
});

Deno.test("lease store etcd: calls share a login, which may take longer than they wait", async () => {
  let numLogins = 0;
  const mayLogIn = Promise.withResolvers<void>();
  await using members = new FakeMembers(1, async (_member, _numCalls, path) => {
    if (path !== "/v3/auth/authenticate") return empty;
    numLogins++;
    await mayLogIn.promise;
    return { token: "t" };
  });
  const credentials = { user: "u", password: "p" };
  const store = await openLeaseStore(members.url, { timeoutMs: 60, credentials });
  const late = /^StoreAwayError: etcd's check of the password: no answer in 60 ms$/;
  for (let i = 0; i < 2; i++) {
    const calls = [store.list("hosts/"), store.get("leader"), store.set("leader", "1", 0)];
    await Promise.all(calls.map((call) => assert.rejects(call, late)));
  }
  mayLogIn.resolve();
  await until(() => store.list("hosts/").then(() => true, () => false), "the login counts");
  assert.equal(numLogins, 1);
  await store.close();
});

Deno.test("lease store etcd: a password that is refused is not sent with each call", async () => {
  let numLogins = 0;
  await using members = new FakeMembers(1, () => {
    numLogins++;
    const error = "etcdserver: authentication failed, invalid user ID or password";
    return Response.json({ code: 3, error }, { status: 400 });
  });
  const credentials = { user: "u", password: "p" };
  const store = await openLeaseStore(members.url, { timeoutMs: CALL_TIMEOUT_MS, credentials });
  for (let i = 0; i < 3; i++) {
    await assert.rejects(
      store.get("leader"),
      /^StoreRefusedError: etcd refuses these credentials: /,
    );
  }
  assert.ok(numLogins < 3, `${numLogins} logins`);
  await store.close();
});

Deno.test("lease store etcd: what is no etcd, or too old, is named", async () => {
  const answers: [() => object, RegExp][] = [
    [
      () => new Response("404 page not found", { status: 404 }),
      /client port of etcd 3\.4 or later$/,
    ],
    [() => Response.json({ code: 5, error: "Not Found" }, { status: 404 }), /3\.4 or later$/],
    [() => new Response("<html>"), /at http:\/\/127\..* is no etcd: status 200, no JSON$/],
    [() => ({ hello: "world" }), /is no etcd: its revision is "undefined"$/],
  ];
  for (const [answer, expected] of answers) {
    await using members = new FakeMembers(1, answer);
    const store = await openLeaseStore(members.url, { timeoutMs: CALL_TIMEOUT_MS });
    await assert.rejects(store.get("leader"), (error) => {
      assert.ok(error instanceof StoreRefusedError, String(error));
      assert.match(error.message, expected);
      return true;
    });
    await store.close();
  }
});

Deno.test("lease store etcd: a user without a password and a wrong certificate are usage errors", async () => {
  const open = (credentials: Record<string, string>) =>
    openLeaseStore("etcd://127.0.0.1", { credentials });
  await assert.rejects(open({ user: "root" }), UsageError);
  await assert.rejects(open({ authority: "no certificate" }), UsageError);
  await assert.rejects(open({ nkeySeed: "SU" }), /etcd: takes no nkeySeed/);
});
