import assert from "node:assert/strict";
import { type Clock, realClock } from "../../../../src/core/clock.ts";
import { UnavailableError, UsageError } from "../../../../src/core/errors.ts";
import type { InstanceId } from "../../../../src/core/protocol/generate.ts";
import { blockBytes } from "../../../../src/kv/layout.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { readRuns } from "../../../../src/kv/pool/copy_runs.ts";
import { SUITE_BLOCKS, suiteLayout } from "../../../conformance/migration_backend.ts";
import { ExampleDevicePool } from "../../pool/example_device_pool.ts";
import { type EndShape, form, type GrpcEnd, membersOf, openEnd } from "./support.ts";

async function withEnds(
  shapes: Readonly<Record<InstanceId, EndShape>>,
  body: (...ends: GrpcEnd[]) => Promise<void>,
): Promise<void> {
  const ends = Object.entries(shapes).map(([id, shape]) => openEnd(id, shape));
  try {
    await body(...ends);
  } finally {
    for (const { backend } of ends) await backend.close();
  }
}

function send(
  from: GrpcEnd,
  to: GrpcEnd,
  { blocks = [1], isBackground = false, timeoutMs = 30_000 } = {},
) {
  return from.backend.send({
    migrationId: "m",
    destination: { instanceId: to.instanceId, address: "" },
    endpoint: to.backend.endpoint,
    sourceBlocks: blocks,
    destinationBlocks: blocks,
    deadlineMs: realClock.nowMs() + timeoutMs,
    isBackground,
  }, new AbortController().signal);
}

Deno.test("grpc backend: instances with one address take one port after the other", () =>
  withEnds({ a: {} }, async (a) => {
    const { port } = a.backend.endpoint;
    const b = openEnd("b", { listenAt: { hostname: "127.0.0.1", port } });
    assert.ok(b.backend.endpoint.port > port && b.backend.endpoint.port < port + 64);
    assert.equal(b.backend.servesAt, `127.0.0.1:${b.backend.endpoint.port}`);
    assert.deepEqual(await form([a, b]), [[], []]);
    await b.backend.close();
  }));

Deno.test("grpc backend: it listens at the address that was asked for, and at no other", async () => {
  await withEnds({ a: {} }, async ({ backend }) => {
    const { port } = backend.endpoint;
    await assert.rejects(Deno.connect({ hostname: "127.0.0.2", port }));
  });
  const foreign = { listenAt: { hostname: "192.0.2.1", port: 50051 } };
  assert.throws(() => openEnd("a", foreign), (error: Error) => {
    assert.match(
      error.message,
      /^--migration-backend-server-address 192.0.2.1:50051: .*of this host/,
    );
    return error instanceof UsageError;
  });
});

Deno.test("grpc backend: members that cannot exchange blocks are named with the reason", () => {
  const layout = { ...suiteLayout, blockSize: 8 };
  const other = { pool: new ArrayKvPool(layout, 4) };
  return withEnds({ a: {}, b: { model: "n" }, c: other, d: {}, e: {} }, async (...ends) => {
    const [a, b, c, d, e] = membersOf(ends);
    await ends[3].backend.close();
    const impostor = { ...b, instanceId: "f", endpoint: e.endpoint };
    const members = [a, b, c, d, e, impostor];
    const failed = await ends[0].backend.join({ secret: "s", generation: 1, members });
    const reasons = Object.fromEntries(failed.map((one) => [one.instanceId, one.reason]));
    assert.deepEqual(Object.keys(reasons), ["b", "c", "d", "f"]);
    assert.equal(reasons.b, "it serves n, and a m");
    assert.match(reasons.c, /^KV caches differ: blockSize/);
    assert.match(reasons.d, /^127\.0\.0\.1:\d+: .*only its own host reaches this address/);
    assert.match(reasons.f, /^e listens at 127\.0\.0\.1:/);
  });
});

Deno.test("grpc backend: a member of another group writes nothing", () =>
  withEnds({ a: {}, b: {} }, async (a, b) => {
    await b.backend.grant("m", [1]);
    await assert.rejects(send(a, b), { message: "the instance is in no migration group" });
    await form([a, b], "one");
    await b.backend.join({ secret: "another", generation: 1, members: [] });
    const before = (b.pool as ArrayKvPool).run(1, 0, 1).slice();
    await assert.rejects(send(a, b), (error: Error) => {
      assert.match(
        error.message,
        /^b at .*: the caller is not in this instance's migration group$/,
      );
      return error instanceof UnavailableError;
    });
    assert.deepEqual((b.pool as ArrayKvPool).run(1, 0, 1), before);
    await form([a, b], "another");
    await send(a, b);
  }));

Deno.test("grpc backend: in the background it pauses between pieces of 512 KiB", async () => {
  const pausesMs: number[] = [];
  const clock: Clock = {
    ...realClock,
    after(delayMs, action) {
      // A deadline, or the next look at idle connections.
      if (delayMs >= 250) return realClock.after(delayMs, action);
      pausesMs.push(delayMs);
      return realClock.after(0, action);
    },
  };
  const layout = { ...suiteLayout, numKvHeads: 8, headDim: 64 };
  const numBlocks = Math.ceil((2 << 20) / blockBytes(layout));
  const pool = () => new ArrayKvPool(layout, numBlocks);
  await withEnds({ a: { pool: pool(), clock }, b: { pool: pool() } }, async (a, b) => {
    await form([a, b]);
    const blocks = Array.from({ length: numBlocks }, (_, block) => block);
    await b.backend.grant("m", blocks);
    await send(a, b, { blocks, timeoutMs: 1e6 });
    assert.deepEqual(pausesMs, []);
    await send(a, b, { blocks, timeoutMs: 1e6, isBackground: true });
    assert.ok(pausesMs.length >= 1 && pausesMs.length <= 3, `${pausesMs}`);
  });
});

Deno.test("grpc backend: a revocation waits for the write of a device that is under way", () => {
  const pool = new ExampleDevicePool(suiteLayout, SUITE_BLOCKS);
  const began = Promise.withResolvers<void>();
  let isWriting = false;
  const write = pool.write.bind(pool);
  pool.write = async (runs, bytes) => {
    isWriting = true;
    began.resolve();
    await write(runs, bytes);
    isWriting = false;
  };
  return withEnds({ a: {}, b: { pool } }, async (a, b) => {
    await form([a, b]);
    (a.pool as ArrayKvPool).run(1, 0, 1).fill(9);
    await b.backend.grant("m", [1]);
    const sending = send(a, b).catch((error) => assert.ok(error instanceof UnavailableError));
    await began.promise;
    assert.ok(isWriting);
    await b.backend.revoke("m");
    assert.ok(!isWriting);
    await sending;
    assert.equal((await readRuns(pool, [{ block: 1, firstLayer: 0, numLayers: 1 }]))[0], 9);
  });
});
