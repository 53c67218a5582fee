import assert from "node:assert/strict";
import { openSockets } from "../../../../ffi/sockets.ts";
import { realClock } from "../../../../src/core/clock.ts";
import type { KvLayout } from "../../../../src/kv/layout.ts";
import type { KvPool } from "../../../../src/kv/pool/pool.ts";
import { type BackendPair, testMigrationBackend } from "../../../conformance/migration_backend.ts";
import { testHungDevice } from "../../../conformance/hung_device.ts";
import { LossyLink } from "../../../conformance/lossy_link.ts";
import {
  type LossyPair,
  NETWORK_BLOCKS,
  networkLayout,
  testNetworkBackend,
} from "../../../conformance/network_backend.ts";
import { rejection } from "../../../conformance/bus.ts";
import { directory } from "../../../ffi/software_device/device.ts";
import { missing, SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";
import { type EndShape, form, type GlooEnd, membersOf, openEnd } from "./support.ts";

async function openPair(shape: EndShape, destinationShape = shape): Promise<BackendPair> {
  const source = await openEnd("source", shape);
  const destination = await openEnd("destination", destinationShape);
  assert.deepEqual(await form([source, destination]), [[], []]);
  return {
    source,
    destination,
    instanceIdOf: (end) => end === source ? "source" : "destination",
    nowMs: () => realClock.nowMs(),
    settle: (promise) => promise,
    close: async () => {
      for (const { backend, pool } of [source, destination]) {
        await backend.close();
        if (pool.memory === "device") await pool.close();
      }
    },
  };
}

testMigrationBackend({
  name: "gloo",
  hasData: true,
  open: (limits) => openPair({ limits }),
});
testMigrationBackend({
  name: "gloo, encrypted",
  hasData: true,
  only: /random transfers|a revocation during|after an abort|after the deadline|is gone/,
  open: (limits) => openPair({ limits, isSealed: true }),
});
testMigrationBackend({
  name: "gloo, without memory",
  hasData: false,
  open: (limits) => openPair({ limits, hasMemory: false }),
});

testMigrationBackend({
  name: "gloo, pools of a device",
  hasData: true,
  skipped: missing ?? undefined,
  open: (limits) => openPair({ limits, newPool: newDevicePool }),
});
testMigrationBackend({
  name: "gloo, pools of a device, encrypted",
  hasData: true,
  skipped: missing ?? undefined,
  open: (limits) => openPair({ limits, newPool: newDevicePool, isSealed: true }),
  only: /random transfers|a revocation during/,
});

/** The transfer thread opens the pool by the environment. */
function newDevicePool(layout: KvLayout, numBlocks: number): KvPool {
  Deno.env.set("LLUMNIX_CUDA_LIBRARIES", directory!);
  return new SoftwareCudaPool(layout, numBlocks);
}

const networkShape: EndShape = {
  layout: networkLayout,
  numBlocks: NETWORK_BLOCKS,
  limits: { bufferBlocks: 8, numLayers: 2 },
};
testNetworkBackend({ name: "gloo", open: () => openLossyPair(networkShape) });
testNetworkBackend({
  name: "gloo, encrypted",
  open: () => openLossyPair({ ...networkShape, isSealed: true }),
  only: /breaks after half|a link that is too slow/,
});
testNetworkBackend({
  name: "gloo, pools of a device",
  open: () => openLossyPair({ ...networkShape, newPool: newDevicePool }),
  only: /hangs after half|is closed in the middle/,
  skipped: missing ?? undefined,
});

testHungDevice({
  name: "gloo",
  isLong: true, // the transfer thread opens the pool, with its limit for copies
  skipped: missing ?? undefined,
  async open() {
    const limits = { bufferBlocks: 8, numLayers: 4 };
    return await openPair({ limits }, { limits, newPool: newDevicePool });
  },
});

async function openLossyPair(shape: EndShape): Promise<LossyPair> {
  const source = await openEnd("source", shape);
  const destination = await openEnd("destination", shape);
  const link = new LossyLink(destination.backend.endpoint.port);
  const ends = [source, destination];
  const members = membersOf(ends).map((member) => ({
    ...member,
    endpoint: { host: "127.0.0.1", port: member.rank === 0 ? 1 : link.port },
  }));
  await Promise.all([
    destination.backend.join({ secret: "s", generation: 1, members: membersOf(ends) }),
    source.backend.join({ secret: "s", generation: 1, members }),
  ]);
  return {
    source,
    destination,
    link,
    instanceIdOf: (end) => end === source ? "source" : "destination",
    nowMs: () => realClock.nowMs(),
    settle: (promise) => promise,
    close: async () => {
      link.close();
      for (const { backend, pool } of ends) {
        await backend.close();
        if (pool.memory === "device") await pool.close();
      }
    },
  };
}

Deno.test("gloo backend: a transfer thread that dies says so, and its peers notice", async () => {
  const [a, b] = [await openEnd("a"), await openEnd("b")];
  assert.deepEqual(await form([a, b]), [[], []]);
  await b.backend.grant("to b", [1]);
  const send = (source: GlooEnd, destination: GlooEnd) =>
    rejection(source.backend.send({
      migrationId: `to ${destination.instanceId}`,
      destination: { instanceId: destination.instanceId, address: "" },
      endpoint: destination.backend.endpoint,
      sourceBlocks: [0],
      destinationBlocks: [1],
      deadlineMs: realClock.nowMs() + 60_000,
    }, new AbortController().signal));
  const broken = { secret: "s", generation: 2, members: null as never };
  const { kind, message } = await rejection(a.backend.join(broken));
  assert.equal(kind, "unavailable");
  assert.match(message, /^the transfer thread died: /);
  assert.equal(await a.backend.failed, message);
  assert.equal(a.backend.isReady, false);
  assert.equal((await send(a, b)).message, message);
  assert.equal((await rejection(a.backend.grant("to a", [1]))).message, message);
  await a.backend.revoke("to a");
  assert.match((await send(b, a)).message, /connection/i);
  assert.equal(b.backend.isReady, true);
  await a.backend.close();
  await b.backend.close();
  assert.equal(await Promise.race([b.backend.failed, null]), null);
});

Deno.test("gloo backend: a thread that dies while it closes takes nothing with it, and is no failure", async () => {
  const { backend } = await openEnd("a");
  const sockets = openSockets()!;
  const opened: number[] = [];
  const broken = { secret: "s", generation: 1, members: null as never };
  const joining = backend.join(broken).catch(() => {
    // One of these has the number that the pipe to the thread had.
    for (let i = 0; i < 16; i++) opened.push(...Object.values(sockets.pipe()));
  });
  await backend.close();
  await joining;
  assert.equal(opened.length, 32);
  const isOpen = (fd: number) => sockets.poll([{ fd, events: 0 }], 0)[0] === 0;
  assert.deepEqual(opened.filter((fd) => !isOpen(fd)), []);
  opened.forEach((fd) => sockets.close(fd));
  assert.equal(await Promise.race([backend.failed, null]), null);
});

Deno.test("gloo backend: blocks can be made ready before they are granted, and keep what they hold", async () => {
  const end = await openEnd("a");
  assert.deepEqual(await form([end]), [[]]);
  assert.ok(end.pool.memory === "host");
  end.pool.run(1, 0, 1).fill(7);
  end.backend.prepare([1, 0, 2]);
  await end.backend.grant("m", [0]); // comes after
  assert.ok(end.pool.run(1, 0, 1).every((byte) => byte === 7));
  assert.throws(() => end.backend.prepare([1 << 20]), RangeError);
  await end.backend.close();
});

Deno.test({ name: "gloo backend: a group at IPv6 addresses", ignore: !hasIpv6() }, async () => {
  const ends = [await openEnd("a", { host: "::1" }), await openEnd("b", { host: "::1" })];
  assert.deepEqual(await form(ends), [[], []]);
  for (const { backend } of ends) await backend.close();
});

function hasIpv6(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}
