/** Who may send blocks to whom: what a member of a group refuses, and how it is told. */
import assert from "node:assert/strict";
import type { KvLayout } from "../../../../src/kv/layout.ts";
import { PROTOCOL_VERSION } from "../../../../src/kv/transfer/gloo/frame_stream.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { frame, helloOf, preamble, PREAMBLE_BYTES, readExactly, Rogue, sendAll } from "./rogue.ts";
import { type EndShape, form, type GlooEnd, membersOf, openEnd } from "./support.ts";
import { ENDLESS_MS, PATIENCE_MS, within } from "../../../patience.ts";

async function withEnds(
  shapes: readonly EndShape[],
  body: (ends: readonly GlooEnd[]) => Promise<void>,
): Promise<void> {
  const ends = await Promise.all(shapes.map((shape, i) => openEnd(`i${i}`, shape)));
  try {
    await body(ends);
  } finally {
    for (const { backend } of ends) await backend.close();
  }
}

function differs(what: string, shape: EndShape, here: RegExp, there: RegExp): void {
  Deno.test(`gloo handshake: another ${what} is refused, both are named`, () =>
    withEnds([{}, shape], async (ends) => {
      const [[atFirst], [atSecond]] = await form(ends);
      assert.match(atFirst.reason, here);
      assert.match(atSecond.reason, there);
      assert.deepEqual([atFirst.instanceId, atSecond.instanceId], ["i1", "i0"]);
    }));
}

const layoutWith = (difference: Partial<KvLayout>) => ({
  layout: { ...suiteLayout, ...difference },
});

differs("model", { model: "n" }, /i1 serves n, and i0 serves m/, /i0 serves m, and i1 serves n/);
differs(
  "type of elements",
  layoutWith({ dtype: "bfloat16" }),
  /KV caches differ: dtype is bfloat16 at i1 and float32 at i0/,
  /KV caches differ: dtype is float32 at i0 and bfloat16 at i1/,
);
differs(
  "block size",
  layoutWith({ blockSize: 8 }),
  /blockSize is 8 at i1 and 4 at i0/,
  /blockSize is 4 at i0 and 8 at i1/,
);
differs(
  "number of layers",
  layoutWith({ numLayers: 5 }),
  /numLayers is 5 at i1 and 4 at i0/,
  /numLayers is 4 at i0 and 5 at i1/,
);
differs(
  "format",
  layoutWith({ format: "other" as KvLayout["format"] }),
  /format is other at i1 and k-transposed at i0/,
  /format is k-transposed at i0 and other at i1/,
);

Deno.test("gloo group: three members, one of which leaves and comes back elsewhere", () =>
  withEnds([{}, {}, {}], async (ends) => {
    assert.deepEqual(await form(ends), [[], [], []]);
    assert.deepEqual(await form(ends.slice(0, 2), 2), [[], []]);
    const again = await openEnd("i2");
    try {
      assert.deepEqual(await form([...ends.slice(0, 2), again], 3), [[], [], []]);
    } finally {
      await again.backend.close();
    }
  }));

Deno.test("gloo group: a new secret, as of a manager that was started again", () =>
  withEnds([{}, {}], async (ends) => {
    assert.deepEqual(await form(ends, 1, "old"), [[], []]);
    assert.deepEqual(await form(ends, 1, "new"), [[], []]);
  }));

Deno.test("gloo group: a member of another group is refused when its time is over", () =>
  withEnds([{}, { initTimeoutMs: 200 }], async ([a, b]) => {
    const members = membersOf([a, b]);
    await b.backend.join({ secret: "other", generation: 1, members: [members[1]] });
    const [{ reason }] = await a.backend.join({ secret: "s", generation: 1, members });
    assert.match(reason, /i1 at 127.0.0.1:\d+: i1 is not in that group/);
  }));

Deno.test("gloo group: who was told of it first waits for the others", () =>
  withEnds([{}, {}], async ([a, b]) => {
    const group = { secret: "s", generation: 1, members: membersOf([a, b]) };
    const joined = a.backend.join(group);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(await b.backend.join(group), []);
    assert.deepEqual(await joined, []);
  }));

/** What `a` says of a member at a port where something else listens. */
async function joinStranger(port: number, initTimeoutMs = PATIENCE_MS): Promise<string> {
  const a = await openEnd("i0", { initTimeoutMs });
  try {
    const members = [
      ...membersOf([a]),
      { instanceId: "i1", rank: 1, endpoint: { host: "127.0.0.1", port } },
    ];
    const [{ reason }] = await a.backend.join({ secret: "s", generation: 1, members });
    return reason;
  } finally {
    await a.backend.close();
  }
}

/** Another service, which answers so. */
async function withService(answer: Uint8Array | null, body: (port: number) => Promise<void>) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connections: Deno.Conn[] = [];
  const serving = (async () => {
    for await (const connection of listener) {
      connections.push(connection);
      if (answer) await connection.write(answer);
    }
  })();
  try {
    await body(listener.addr.port);
  } finally {
    listener.close();
    await serving;
    for (const connection of connections) connection.close();
  }
}

Deno.test("gloo group: a port where another service answers", () =>
  withService(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"), async (port) => {
    const reason = await joinStranger(port);
    assert.equal(reason, `i1 at 127.0.0.1:${port}: another service answers at this address`);
  }));

Deno.test("gloo group: a port where another service says nothing", () =>
  withService(null, async (port) => {
    assert.match(
      await joinStranger(port, 200),
      /timed out waiting for an answer to the greeting: the other end hangs, or another service has the port/,
    );
  }));

Deno.test("gloo group: a port where nobody listens", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  assert.match(await joinStranger(port), /i1 at 127.0.0.1:\d+: Connection refused/);
});

Deno.test("gloo handshake: another version of the protocol is refused, both are named", async () => {
  const version = PROTOCOL_VERSION + 1;
  const preamble = new Uint8Array([...new TextEncoder().encode("LLMNXKV"), version]);
  await withService(preamble, async (port) => {
    const reason = await joinStranger(port);
    assert.match(
      reason,
      new RegExp(`speaks version ${version} .*, and this end version ${version - 1}: run`),
    );
  });
});

Deno.test("gloo endpoint: strangers are let go, whatever they send", async () => {
  const a = await openEnd("i0", { initTimeoutMs: 300 });
  const { port } = a.backend.endpoint;
  const greeting = [...preamble()];
  const messages: number[][] = [
    [...new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n")],
    [...greeting, 0, 0, 0, 0, 255, 255, 255, 255], // a hello of 4 GiB
    [...greeting, 99, 0, 0, 0, 0, 0, 0, 0],
    [...greeting, 0, 0, 0, 0, 1, 0, 0, 0, 123], // "{"
    [...greeting, 3, 0, 0, 0, 2, 0, 0, 0, 123, 125], // a transfer before the greeting
    [],
  ];
  for (const message of messages) {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(Uint8Array.from(message));
    let end: number | null = 0;
    while (end !== null) end = await connection.read(new Uint8Array(64)).catch(() => null);
    connection.close();
  }
  await a.backend.close();
});

Deno.test("gloo group: a member with another backend's endpoint is a failed peer, and no more", () =>
  withEnds([{}, {}], async (ends) => {
    assert.deepEqual(await form(ends), [[], []]);
    const stranger = (endpoint: Record<string, unknown>) => ({
      instanceId: "x",
      rank: 2,
      endpoint,
    });
    for (
      const [endpoint, reason] of [
        [{}, /the endpoint of x is not one of gloo/],
        [{ host: null, port: "1" }, /the endpoint of x is not one of gloo/],
        [{ host: "nowhere", port: 1 }, /x at nowhere:1: nowhere is not an IP address/],
      ] as const
    ) {
      const members = [...membersOf(ends), stranger(endpoint)];
      const group = { secret: "s", generation: 2, members };
      for (const failed of await Promise.all(ends.map(({ backend }) => backend.join(group)))) {
        assert.deepEqual(failed.map(({ instanceId }) => instanceId), ["x"]);
        assert.match(failed[0].reason, reason);
      }
    }
    assert.deepEqual(await form(ends, 3), [[], []]);
    assert.ok(ends.every(({ backend }) => backend.isReady));
  }));

for (const isSealed of [false, true]) {
  const how = isSealed ? ", encrypted" : "";

  Deno.test(`gloo endpoint: nothing that a member says ends the transfer thread${how}`, async () => {
    const a = await openEnd("i0", { isSealed });
    const { port } = a.backend.endpoint;
    const group = { secret: "s", generation: 1, members: membersOf([a]) };
    assert.deepEqual(await a.backend.join(group), []);
    const hello = helloOf(isSealed);
    for (const wrong of [null, 7, {}, { ...hello, from: null }, { ...hello, isSealed: 1 }]) {
      assert.equal(await Rogue.dial(port, "s", wrong as Record<string, unknown>), null);
    }
    const limits = { bufferBlocks: null, numLayers: 1 };
    const heads = [null, {}, { migrationId: "m", destinationBlocks: 5, limits: null }, {
      ...{ migrationId: "m", destinationBlocks: [1], limits },
    }];
    for (const head of heads) {
      const rogue = await Rogue.dial(port, "s", hello);
      assert.ok(rogue !== null, "it was not welcome");
      await rogue.send(frame(3, head));
      await rogue.untilClosed();
    }
    assert.ok(a.backend.isReady);
    assert.deepEqual(await a.backend.join({ ...group, generation: 2 }), []);
    await a.backend.close();
  });

  Deno.test(`gloo handshake: who has not the group's secret is not welcome${how}`, () =>
    inTime((initTimeoutMs) =>
      withEnds([{ isSealed, initTimeoutMs }], async ([a]) => {
        await form([a], 1, "right");
        const { port } = a.backend.endpoint;
        assert.equal(await Rogue.dial(port, "wrong", helloOf(isSealed)), null);
        const rogue = await Rogue.dial(port, "right", helloOf(isSealed));
        assert.ok(rogue !== null, "it was not welcome");
        rogue.conn.close();
      })
    ));

  Deno.test(`gloo handshake: blocks are not sent to one without the secret${how}`, () =>
    withEnds([{ isSealed }], async ([a]) => {
      using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const answered = listener.accept().then(async (conn) => {
        await (await Rogue.answer(conn, "wrong"))!.untilClosed();
      });
      const stranger = {
        instanceId: "i1",
        rank: 1,
        endpoint: { host: "127.0.0.1", port: listener.addr.port },
      };
      const members = [...membersOf([a]), stranger];
      const [{ reason }] = await a.backend.join({ secret: "right", generation: 1, members });
      assert.match(reason, /i1 at .*: the other end is not in the migration group/);
      await answered;
    }));
}

/**
 * Runs a test in which a member lets strangers go after a time: a short one, unless the machine is so busy
 * that others are let go too.
 */
async function inTime(body: (initTimeoutMs: number) => Promise<void>): Promise<void> {
  await body(200).catch(() => body(2_000)).catch(() => body(20_000));
}

Deno.test("gloo handshake: what a member has said is not welcome again", () =>
  inTime((initTimeoutMs) =>
    withEnds([{ initTimeoutMs }, {}], async ([a, b]) => {
      const { port } = a.backend.endpoint;
      const said: Uint8Array[] = [];
      using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const relayed = listener.accept().then(async (near) => {
        const far = await Deno.connect({ hostname: "127.0.0.1", port });
        await Promise.all([relay(near, far, said), relay(far, near, [])]);
      });
      const [atA, atB] = membersOf([a, b]);
      const detour = { ...atA, endpoint: { ...atA.endpoint, port: listener.addr.port } };
      const group = { secret: "s", generation: 1 };
      await a.backend.join({ ...group, members: [atA] });
      assert.deepEqual(await b.backend.join({ ...group, members: [detour, atB] }), []);
      await b.backend.join({ ...group, generation: 2, members: [atB] });
      await relayed;
      const again = await Deno.connect({ hostname: "127.0.0.1", port });
      for (const bytes of said) await sendAll(again, bytes);
      assert.ok(await readExactly(again, PREAMBLE_BYTES));
      const header = await readExactly(again, 8);
      assert.ok(
        header === null || header[0] === 2,
        `frame ${header?.[0]} where 2, refused, is right`,
      );
      again.close();
    })
  ));

async function relay(from: Deno.Conn, to: Deno.Conn, copy: Uint8Array[]): Promise<void> {
  const buffer = new Uint8Array(4096);
  for (let count; (count = await from.read(buffer).catch(() => null)) !== null;) {
    copy.push(buffer.slice(0, count));
    await sendAll(to, buffer.subarray(0, count));
  }
  await to.closeWrite().catch(() => {});
}

Deno.test("gloo handshake: one that encrypts and one that does not refuse each other", () =>
  withEnds([{ isSealed: true }, {}], async (ends) => {
    for (const [failed] of await form(ends)) {
      assert.match(failed.reason, /one of .* encrypts and the other does not: give both the same/);
    }
  }));

Deno.test("gloo endpoint: strangers who say nothing do not keep a member out", () =>
  withEnds([{ initTimeoutMs: ENDLESS_MS }, {}], async ([a, b]) => {
    const { port } = a.backend.endpoint;
    const strangers: Deno.Conn[] = [];
    for (let i = 0; i < 300; i++) {
      strangers.push(await Deno.connect({ hostname: "127.0.0.1", port }));
    }
    assert.deepEqual(await form([a, b]), [[], []]);
    // The oldest is closed, perhaps before it was greeted. It would be open for minutes otherwise.
    const isClosed = async () => {
      while (await readExactly(strangers[0], 1) !== null);
    };
    await within(isClosed(), "the oldest stranger is let go");
    for (const stranger of strangers) stranger.close();
  }));
