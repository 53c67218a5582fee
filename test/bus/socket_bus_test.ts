import { checkSocketDirectory } from "../../src/bus/unix_trust.ts";
import assert from "node:assert/strict";
import { MAX_UNIX_PATH_BYTES } from "../../src/bus/address.ts";
import { type BusLimits, defaultBusLimits } from "../../src/bus/bus.ts";
import type { Protocol } from "../../src/bus/protocol.ts";
import { openBus } from "../../src/bus/open_bus.ts";
import { SocketBus } from "../../src/bus/socket_bus.ts";
import type { AnyPeer as Peer, AnyService as Service } from "../../src/bus/transport.ts";
import { MessageError } from "../../src/core/errors.ts";
import { anyProtocol, rejection, testBus, until } from "../conformance/bus.ts";

const directory = Deno.makeTempDirSync({ prefix: "llumnix-test-" });
let sockets = 0;
const freshPath = () => `${directory}/${sockets++}.sock`;

testBus({
  name: "unix",
  open: (limits) => new SocketBus(anyProtocol, limits),
  freshAddress: () => `unix:${freshPath()}`,
});
const clusterKey = crypto.getRandomValues(new Uint8Array(32));
testBus({
  name: "tls",
  open: (limits) => new SocketBus(anyProtocol, limits, clusterKey),
  freshAddress: () => "tcp:127.0.0.1:0",
});
testBus({
  name: "tcp",
  open: (limits) => new SocketBus(anyProtocol, limits, "insecure"),
  freshAddress: () => "tcp:127.0.0.1:0",
});
testBus({
  name: "opened unix",
  open: (limits) => openBus({ limits }),
  freshAddress: () => `unix:${freshPath()}`,
});

/** A frame of the wire format with any header; `body` is Latin-1. */
function frame(jsonBytes: number, payloadField: number, body: string): Uint8Array {
  const bytes = new Uint8Array(8 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, jsonBytes, true);
  view.setUint32(4, payloadField, true);
  bytes.set(Uint8Array.from(body, (character) => character.charCodeAt(0)), 8);
  return bytes;
}

const jsonFrame = (json: string) => frame(json.length, 0xffffffff, json);

/** Runs `body` with a raw connection to an echo service, beside a well-behaved peer. */
async function withRogue(
  body: (rogue: Deno.Conn, closed: string[], accepted: Peer) => Promise<void>,
  limits: Partial<BusLimits> = {},
): Promise<void> {
  const bus = new SocketBus(anyProtocol, { ...defaultBusLimits, ...limits });
  const path = freshPath();
  const closed: string[] = [];
  const accepted: Peer[] = [];
  const service: Service = {
    calls: { echo: (message) => message, hang: () => new Promise(() => {}) },
    onConnect: (peer) => accepted.push(peer),
    onClose: (_, reason) => closed.push(reason),
  };
  const listener = await bus.listen(`unix:${path}`, service);
  const good = await bus.connect(listener.address, {});
  assert.equal((await good.call("echo", { data: 1 })).data, 1);
  const rogue = await Deno.connect({ transport: "unix", path });
  await greet(rogue);
  await until(() => accepted.length === 2);
  try {
    await body(rogue, closed, accepted[1]);
    assert.equal((await good.call("echo", { data: 2 })).data, 2, "other connections live on");
  } finally {
    rogue.close();
    await good.close();
    await listener.close();
  }
}

/** Says what a peer says first, and reads the same from the other end. */
async function greet(conn: Deno.Conn, version = anyProtocol.version): Promise<void> {
  const greeting = jsonFrame(`["llumnix",${version}]`);
  await conn.write(greeting);
  const answer = new Uint8Array(greeting.length);
  for (let read = 0; read < answer.length;) read += (await conn.read(answer.subarray(read)))!;
  assert.deepEqual(answer, jsonFrame(`["llumnix",${anyProtocol.version}]`));
}

async function readToEnd(conn: Deno.Conn): Promise<string> {
  let text = "";
  const buffer = new Uint8Array(4096);
  for (let n = await conn.read(buffer); n !== null; n = await conn.read(buffer)) {
    text += new TextDecoder("latin1").decode(buffer.subarray(0, n));
  }
  return text;
}

const garbage: Record<string, Uint8Array> = {
  "an HTTP request": new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
  "an oversize frame": frame(2 ** 31, 0xffffffff, ""),
  "an oversize payload": frame(2, 2 ** 32 - 2, "[]"),
  "a frame that is not JSON": jsonFrame("[1,2"),
  "a frame that is not UTF-8": frame(1, 0xffffffff, "\u00ff"),
  "a frame that is not an array": jsonFrame('{"a":1}'),
  "a record that is not an array": jsonFrame("[7]"),
  "a record of unknown kind": jsonFrame('[[9,1,"echo",null]]'),
  "a call without a method": jsonFrame("[[1,1]]"),
  "an answer to a call that was never made": jsonFrame("[[2,1,null]]"),
  "an unknown notification": jsonFrame('[[0,"__proto__",null]]'),
};

for (const [what, bytes] of Object.entries(garbage)) {
  Deno.test(`socket bus: ${what} closes that connection only`, () =>
    withRogue(async (rogue, closed) => {
      await rogue.write(bytes);
      await until(() => closed.length === 1);
      await readToEnd(rogue).catch((error) => {
        assert.ok(error instanceof Deno.errors.ConnectionReset);
      });
    }));
}

/** What the connecting end is told by one that greets so. */
async function greetedWith(greeting: Uint8Array | null): Promise<string> {
  const path = freshPath();
  using listener = Deno.listen({ transport: "unix", path });
  const connecting = rejection(
    new SocketBus(anyProtocol).connect(`unix:${path}`, {}, { timeoutMs: 200 }),
  );
  const conn = await listener.accept();
  if (greeting !== null) await conn.write(greeting);
  const error = await connecting;
  conn.close();
  assert.equal(error.kind, "unavailable");
  return error.message;
}

Deno.test("socket bus: another version of the protocol is refused, and both are named", async () => {
  assert.match(
    await greetedWith(jsonFrame('["llumnix",8]')),
    /cannot connect to unix:.*: the other end speaks version 8 of the bus protocol, and this end version 7: run the same release/,
  );
  assert.match(
    await greetedWith(jsonFrame('[[0,"x",null]]')),
    /speaks the bus protocol of a release before version 1, and this end version 7/,
  );
  for (const other of ["[]", "{}", "nothing", '["llumnix","7"]']) {
    assert.match(await greetedWith(jsonFrame(other)), /another service answers there/);
  }
  const http = new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n");
  assert.match(await greetedWith(http), /a frame of \d+ bytes is over the limit of 4096/);
  assert.match(await greetedWith(null), /it did not greet in time/);
});

for (const first of ['["llumnix",8]', '[[1,1,"echo",1]]']) {
  Deno.test(`socket bus: ${first} as the first frame closes that connection, and is told the version`, async () => {
    const bus = new SocketBus(anyProtocol);
    const path = freshPath();
    const listener = await bus.listen(`unix:${path}`, { calls: { echo: (message) => message } });
    const rogue = await Deno.connect({ transport: "unix", path });
    await rogue.write(jsonFrame(first));
    assert.match(await readToEnd(rogue), /\["llumnix",7\]$/);
    rogue.close();
    const good = await bus.connect(listener.address, {});
    assert.equal((await good.call("echo", { data: 2 })).data, 2);
    await good.close();
    await listener.close();
  });
}

const pickyProtocol: Protocol = {
  version: 7,
  calls: { echo: { request: isText, reply: isText } },
  notifications: { note: isText },
};

function isText(data: unknown): unknown {
  if (typeof data === "string") return data;
  throw new MessageError("the data: expected a text");
}

Deno.test("socket bus: data that does not fit closes the connection, and the caller is told", async () => {
  const bus = new SocketBus(pickyProtocol);
  const closed: string[] = [];
  const listener = await bus.listen(`unix:${freshPath()}`, {
    calls: { echo: ({ data }) => ({ data: data === "bad" ? 1 : data }) },
    notifications: { note: () => {} },
    onClose: (_, reason) => closed.push(reason),
  });
  const attempt = async (act: (peer: Peer) => Promise<unknown> | void): Promise<unknown> => {
    const peer = await bus.connect(listener.address, {});
    const outcome = await Promise.resolve(act(peer)).catch((error) => error);
    await until(() => !peer.isOpen);
    return outcome;
  };
  const error = await attempt((peer) => peer.call("echo", { data: 1 })) as Error;
  assert.equal(error.message, "the data: expected a text");
  await attempt((peer) => peer.notify("note", { data: 1 }));
  const answer = await attempt((peer) => peer.call("echo", { data: "bad" })) as Error;
  assert.match(
    answer.message,
    /echo to unix:.* got no answer: answer to "echo": the data: expected/,
  );
  assert.deepEqual(closed.slice(0, 2), [
    'call "echo": the data: expected a text',
    'notification "note": the data: expected a text',
  ]);
  await listener.close();
});

Deno.test("socket bus: frames in single bytes are put together", () =>
  withRogue(async (rogue) => {
    for (const byte of jsonFrame('[[1,5,"echo","hi"]]')) await rogue.write(Uint8Array.of(byte));
    const answer = new Uint8Array(100);
    const bytes = await rogue.read(answer);
    assert.deepEqual(answer.subarray(0, bytes!), jsonFrame('[[2,5,"hi"]]'));
  }));

Deno.test("socket bus: a half-closed connection gets the answers that are ready, then closes", () =>
  withRogue(async (rogue, closed) => {
    await rogue.write(jsonFrame('[[1,1,"echo","hi"],[1,2,"hang",null]]'));
    await rogue.closeWrite();
    assert.match(await readToEnd(rogue), /\[\[2,1,"hi"\]\]$/);
    await until(() => closed.length === 1);
  }));

Deno.test("socket bus: a frame cut off by the end of the stream is dropped", () =>
  withRogue(async (rogue, closed) => {
    await rogue.write(jsonFrame('[[1,1,"echo","hi"]]').subarray(0, 20));
    await rogue.closeWrite();
    assert.equal(await readToEnd(rogue), "");
    await until(() => closed.length === 1);
  }));

Deno.test("socket bus: a reader that does not read hits the backlog limit", () =>
  withRogue(async (_, closed, accepted) => {
    const payload = new Uint8Array(64 << 10);
    while (accepted.isOpen) {
      accepted.notify("flood", { data: null, payload });
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await until(() => closed.length === 1);
    assert.match(closed[0], /does not keep up/);
  }, { maxBufferedBytes: 1 << 20 }));

Deno.test("socket bus: more calls at once than the limit close the connection", () =>
  withRogue(async (rogue, closed) => {
    await rogue.write(jsonFrame('[[1,1,"hang",null],[1,2,"hang",null],[1,3,"hang",null]]'));
    await until(() => closed.length === 1);
    assert.match(closed[0], /more than 2 calls/);
  }, { maxPendingCalls: 2 }));

Deno.test("unix bus: the socket file is private and goes with its listener", async () => {
  const path = freshPath();
  const listener = await new SocketBus(anyProtocol).listen(`unix:${path}`, {});
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  await listener.close();
  assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
});

Deno.test("unix bus: the socket file of a dead listener is replaced, other files are not", async () => {
  const bus = new SocketBus(anyProtocol);
  const stale = freshPath();
  const listened = freshPath();
  const dead = Deno.listen({ transport: "unix", path: listened });
  Deno.renameSync(listened, stale); // so that close() does not find it, as after kill -9
  dead.close();
  assert.ok(Deno.lstatSync(stale).isSocket);
  await (await bus.listen(`unix:${stale}`, {})).close();

  const file = freshPath();
  Deno.writeTextFileSync(file, "precious");
  assert.equal((await rejection(bus.listen(`unix:${file}`, {}))).kind, "unavailable");
  assert.equal(Deno.readTextFileSync(file), "precious");
});

Deno.test("unix bus: a path that the system cannot hold is refused with the reason", async () => {
  const path = `${directory}/${"x".repeat(MAX_UNIX_PATH_BYTES)}`;
  const error = await rejection(new SocketBus(anyProtocol).listen(`unix:${path}`, {}));
  assert.match(error.message, /bytes, but the system allows 10/);
});

Deno.test("tcp bus: port 0 is filled in, also for IPv6", async () => {
  const listener = await new SocketBus(anyProtocol, defaultBusLimits, "insecure").listen(
    "tcp:[::1]:0",
    {},
  );
  assert.match(listener.address, /^tcp:\[::1\]:[1-9]\d*$/);
  const peer = await new SocketBus(anyProtocol, defaultBusLimits, "insecure").connect(
    listener.address,
    {},
  );
  assert.equal(peer.remote, listener.address);
  await peer.close();
  await listener.close();
});

const isRoot = Deno.uid() === 0;
const NOBODY = 65534;
const asRoot = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name: isRoot ? name : `${name} (needs root)`, ignore: !isRoot, fn });

Deno.test("unix bus: a directory that others can write is used neither to listen nor to connect", async () => {
  const open = `${directory}/open`;
  Deno.mkdirSync(open);
  const bus = new SocketBus(anyProtocol);
  const listener = await bus.listen(`unix:${open}/a.sock`, {});
  Deno.chmodSync(open, 0o777);
  for (
    const attempt of [bus.connect(listener.address, {}), bus.listen(`unix:${open}/b.sock`, {})]
  ) {
    const error = await rejection(attempt);
    assert.equal(error.kind, "usage");
    assert.match(error.message, /open can be written by other users: .*chmod go-w/);
  }
  Deno.chmodSync(open, 0o1777); // as /tmp is
  await (await bus.connect(listener.address, {})).close();
  await listener.close();
});

asRoot("unix bus: a sticky directory of another user is not used either", () => {
  const foreign = Deno.makeTempDirSync();
  Deno.chownSync(foreign, NOBODY, NOBODY);
  Deno.chmodSync(foreign, 0o1777);
  assert.throws(() => checkSocketDirectory(foreign), /belongs to another user \(uid 65534\)/);
  Deno.removeSync(foreign);
  return Promise.resolve();
});

asRoot("unix bus: a directory that another user's link leads to is not used", async () => {
  const own = Deno.makeTempDirSync();
  const link = `${own}/link`;
  Deno.mkdirSync(`${own}/private`, { mode: 0o700 });
  Deno.symlinkSync(`${own}/private`, link);
  checkSocketDirectory(link);
  await new Deno.Command("chown", { args: ["-h", `${NOBODY}:${NOBODY}`, link] }).output();
  const message = /link\/? is a symbolic link of another user \(uid 65534\)/;
  assert.throws(() => checkSocketDirectory(link), message);
  assert.throws(() => checkSocketDirectory(`${link}/`), message);
  Deno.removeSync(own, { recursive: true });
});

asRoot("unix bus: a directory, or a socket, of another user is not connected to", async () => {
  const bus = new SocketBus(anyProtocol);
  const foreign = `${directory}/foreign`;
  Deno.mkdirSync(foreign, { mode: 0o700 });
  let prompts = 0;
  const path = `${foreign}/manager.sock`;
  const thief = Deno.listen({ transport: "unix", path });
  const accepting = thief.accept().then(() => prompts++, () => {});
  Deno.chownSync(foreign, NOBODY, NOBODY);
  assert.match(
    (await rejection(bus.connect(`unix:${path}`, {}))).message,
    /foreign belongs to another user \(uid 65534\)/,
  );
  Deno.chownSync(foreign, 0, 0);
  Deno.chownSync(path, NOBODY, NOBODY);
  assert.match(
    (await rejection(bus.connect(`unix:${path}`, {}))).message,
    /manager\.sock belongs to another user/,
  );
  thief.close();
  await accepting;
  assert.equal(prompts, 0);
});

/** A path of Deno that every user reaches: npm has put it into the home of one, which may be closed. */
function reachableDeno(): string {
  const path = `${directory}/deno`;
  Deno.chmodSync(directory, 0o755);
  try {
    Deno.linkSync(Deno.execPath(), path);
  } catch (error) {
    // The first test has made it, or it would be a link from one file system to another.
    if (!(error instanceof Deno.errors.AlreadyExists)) Deno.copyFileSync(Deno.execPath(), path);
  }
  return path;
}

/** A process of another user, which runs this and says when it is there. */
async function asNobody(code: string, body: () => Promise<void>): Promise<void> {
  const child = new Deno.Command(reachableDeno(), {
    args: ["eval", `${code}; console.log(1); setTimeout(() => {}, 120_000);`],
    cwd: "/",
    env: { DENO_DIR: "/nonexistent", HOME: "/" },
    uid: NOBODY,
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  try {
    assert.equal((await output.read()).done, false, "it did what it was to do");
    await body();
  } finally {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has failed.
    }
    await output.cancel();
    await child.status;
  }
}

asRoot(
  "unix bus: a process of another user is told nothing, whoever owns its socket's file",
  async () => {
    const shared = `${directory}/shared`;
    Deno.mkdirSync(shared);
    Deno.chmodSync(shared, 0o1777);
    Deno.chmodSync(directory, 0o755);
    const path = `${shared}/manager.sock`;
    await asNobody(`Deno.listen({ transport: "unix", path: "${path}" })`, async () => {
      Deno.chownSync(path, 0, 0); // as if it had come between the look and the connection
      const error = await rejection(new SocketBus(anyProtocol).connect(`unix:${path}`, {}));
      assert.equal(error.kind, "usage");
      assert.match(error.message, /a process of another user \(pid \d+, uid 65534\) listens at /);
    });
  },
);

asRoot(
  "unix bus: a process of another user that connects is closed, and others are served",
  async () => {
    const bus = new SocketBus(anyProtocol);
    const path = `${directory}/served.sock`;
    const connected: Peer[] = [];
    const listener = await bus.listen(`unix:${path}`, {
      onConnect: (peer) => connected.push(peer),
    });
    Deno.chmodSync(path, 0o777);
    Deno.chmodSync(directory, 0o755);
    await asNobody(
      `const conn = await Deno.connect({ transport: "unix", path: "${path}" });` +
        `if (await conn.read(new Uint8Array(1)) !== null) Deno.exit(1)`,
      async () => {},
    );
    const good = await bus.connect(listener.address, {});
    await until(() => connected.length === 1);
    assert.equal(connected[0].pid, Deno.pid);
    assert.equal(good.pid, Deno.pid);
    await good.close();
    await listener.close();
  },
);

Deno.test("unix bus: the pid at the other end is the system's, and over TCP it is not known", async () => {
  for (
    const [address, pid, key] of [
      [`unix:${freshPath()}`, Deno.pid, null],
      ["tcp:127.0.0.1:0", null, "insecure"],
      ["tcp:127.0.0.1:0", null, clusterKey],
    ] as const
  ) {
    const bus = new SocketBus(anyProtocol, defaultBusLimits, key);
    const accepted: Peer[] = [];
    const listener = await bus.listen(address, { onConnect: (peer) => accepted.push(peer) });
    const near = await bus.connect(listener.address, {});
    await until(() => accepted.length === 1);
    const expected = Deno.build.os === "linux" ? pid : null;
    assert.deepEqual([near.pid, accepted[0].pid], [expected, expected]);
    const host = address.startsWith("tcp:") ? "127.0.0.1" : null;
    assert.deepEqual([near.localHost, accepted[0].localHost], [host, host]);
    await near.close();
    await listener.close();
  }
});

globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));

Deno.test("tcp bus: strangers who say nothing do not keep a peer out", async () => {
  const bus = new SocketBus(anyProtocol, defaultBusLimits, "insecure");
  const listener = await bus.listen("tcp:127.0.0.1:0", {});
  const port = Number(listener.address.split(":").at(-1));
  const strangers = [];
  for (let i = 0; i < 300; i++) strangers.push(await Deno.connect({ hostname: "127.0.0.1", port }));
  const closed = await strangers[0].read(new Uint8Array(1)).catch(() => null);
  assert.equal(closed, null, "the oldest stranger makes room");
  const peer = await bus.connect(listener.address, {});
  assert.ok(peer.isOpen);
  await peer.close();
  for (const stranger of strangers) stranger.close();
  await listener.close();
});
