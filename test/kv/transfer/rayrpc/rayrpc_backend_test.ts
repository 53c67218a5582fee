import assert from "node:assert/strict";
import { parseAddress, type ParsedAddress, tcpAddress } from "../../../../src/bus/address.ts";
import { openBus } from "../../../../src/bus/open_bus.ts";
import type { Listener } from "../../../../src/bus/bus.ts";
import { type Clock, realClock } from "../../../../src/core/clock.ts";
import { RequestError, UnavailableError } from "../../../../src/core/errors.ts";
import { MigrationPeers } from "../../../../src/instance/llumlet/migration_peers.ts";
import { layerBytes } from "../../../../src/kv/layout.ts";
import { readRuns } from "../../../../src/kv/pool/copy_runs.ts";
import { AccountedKvPool } from "../../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import type { KvPool } from "../../../../src/kv/pool/pool.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import type { BackendLink } from "../../../../src/kv/transfer/backend_kind.ts";
import { RayRpcBackend } from "../../../../src/kv/transfer/rayrpc/rayrpc_backend.ts";
import {
  type BackendEnd,
  type BackendPair,
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";
import { testHungDevice } from "../../../conformance/hung_device.ts";
import { LossyLink } from "../../../conformance/lossy_link.ts";
import {
  NETWORK_BLOCKS,
  networkLayout,
  testNetworkBackend,
} from "../../../conformance/network_backend.ts";
import { fill } from "../../../conformance/kv_pool.ts";
import { PATIENCE_MS, pause, until } from "../../../patience.ts";
import { missing, SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";
import { ExampleDevicePool } from "../../pool/example_device_pool.ts";

type ParsedTcp = ParsedAddress & { readonly scheme: "tcp" };

interface RpcEnd extends BackendEnd {
  readonly backend: RayRpcBackend;
  readonly listener: Listener;
}

/** An instance's end that serves on the loopback interface. */
async function newEnd(limits: TransferLimits, pool: KvPool): Promise<RpcEnd> {
  const bus = openBus({ clusterKey: "insecure" });
  const links = new MigrationPeers(bus, realClock, () => {});
  const backend = new RayRpcBackend({ pool, limits, clock: realClock, links });
  const listener = await bus.listen("tcp:127.0.0.1:0", { calls: backend.calls });
  return { backend, pool, listener };
}

async function newPair(limits: TransferLimits, newPool: () => KvPool) {
  const source = await newEnd(limits, newPool()), destination = await newEnd(limits, newPool());
  return {
    source,
    destination,
    addressOf: (end: BackendEnd) => (end as RpcEnd).listener.address,
    nowMs: () => realClock.nowMs(),
    settle: <T>(promise: Promise<T>) => promise,
    async close() {
      for (const { backend, listener } of [source, destination]) {
        await backend.close();
        await listener.close();
      }
    },
  } satisfies BackendPair;
}

const arrayPool = () => new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
const accountedPool = () => new AccountedKvPool(suiteLayout, SUITE_BLOCKS);

testMigrationBackend({
  name: "rayrpc",
  hasData: true,
  open: (limits) => newPair(limits, arrayPool),
});
testMigrationBackend({
  name: "rayrpc, pools of a device",
  hasData: true,
  open: (limits) => newPair(limits, () => new ExampleDevicePool(suiteLayout, SUITE_BLOCKS)),
});
testMigrationBackend({
  name: "rayrpc, pools of CUDA",
  hasData: true,
  skipped: missing ?? undefined,
  open: async (limits) => {
    const pair = await newPair(limits, () => new SoftwareCudaPool(suiteLayout, SUITE_BLOCKS));
    const pools = [pair.source.pool, pair.destination.pool] as SoftwareCudaPool[];
    return {
      ...pair,
      async close() {
        await pair.close();
        for (const pool of pools) await pool.close();
      },
    };
  },
});
testMigrationBackend({
  name: "rayrpc, without memory",
  hasData: false,
  open: (limits) => newPair(limits, accountedPool),
});

testNetworkBackend({
  name: "rayrpc",
  async open() {
    const limits = { bufferBlocks: 8, numLayers: 2 };
    const newPool = () => new ArrayKvPool(networkLayout, NETWORK_BLOCKS);
    const pair = await newPair(limits, newPool);
    const { host, port } = parseAddress(pair.destination.listener.address) as ParsedTcp;
    const link = new LossyLink(port);
    return {
      ...pair,
      link,
      addressOf: () => tcpAddress(host, link.port),
      async close() {
        link.close();
        await pair.close();
      },
    };
  },
});

testHungDevice({
  name: "rayrpc",
  skipped: missing ?? undefined,
  async open() {
    const pool = new SoftwareCudaPool(suiteLayout, SUITE_BLOCKS, 1000, 200);
    const pools = [arrayPool(), pool];
    const pair = await newPair({ bufferBlocks: 8, numLayers: 4 }, () => pools.shift()!);
    return {
      ...pair,
      async close() {
        await pool.close(); // ends the write that hangs, for which the backend waits
        await pair.close();
      },
    };
  },
});

Deno.test("rayrpc backend: rounds have a limit in bytes, whatever the options say", async () => {
  const layout = { ...suiteLayout, numKvHeads: 64, headDim: 128 }; // layers of 256 KiB
  const pair = await newPair({ bufferBlocks: 512, numLayers: 4 }, () => new ArrayKvPool(layout, 8));
  const blocks = [0, 1, 2, 3];
  await pair.destination.backend.grant("m", blocks);
  const { rounds, bytes } = await pair.source.backend.send({
    migrationId: "m",
    destination: { instanceId: "b", address: pair.destination.listener.address },
    endpoint: {},
    sourceBlocks: blocks,
    destinationBlocks: blocks,
    deadlineMs: realClock.nowMs() + 60_000,
  }, new AbortController().signal);
  assert.deepEqual([rounds, bytes], [4, 4 << 20]);
  await pair.close();
});

Deno.test("rayrpc backend: a payload that does not fit its blocks is refused", async () => {
  const { destination: { backend }, close } = await newPair(
    { bufferBlocks: 1, numLayers: 1 },
    arrayPool,
  );
  await backend.grant("m", [1]);
  const data = { migrationId: "m", blocks: [1], firstLayer: 0, numLayers: 4 };
  const call = (payload?: Uint8Array<ArrayBuffer>) =>
    backend.calls.migrate_blocks({ data, payload });
  await assert.rejects(call(new Uint8Array(5)), RequestError);
  await assert.rejects(call(), RequestError);
  await backend.revoke("m");
  await assert.rejects(call(new Uint8Array(5)), UnavailableError);
  await close();
});

Deno.test("rayrpc backend: in the background it pauses between pieces, however many rounds they take", async () => {
  let nowMs = 0;
  const pausesMs: number[] = [];
  const clock: Clock = {
    ...realClock,
    nowMs: () => nowMs,
    after(delayMs, action) {
      pausesMs.push(delayMs);
      nowMs += delayMs;
      queueMicrotask(action);
      return () => {};
    },
  };
  const call = () => {
    nowMs += 10;
    return Promise.resolve({ data: null });
  };
  const link: BackendLink = { call: call as BackendLink["call"], close: () => Promise.resolve() };
  const layout = { ...suiteLayout, numKvHeads: 8, headDim: 64 }; // blocks of 64 KiB
  const backend = new RayRpcBackend({
    pool: new ArrayKvPool(layout, 20),
    limits: { bufferBlocks: 2, numLayers: 1 }, // rounds of 32 KiB
    clock,
    links: { open: () => Promise.resolve(link), close: () => Promise.resolve() },
  });
  const send = (numBlocks: number) => {
    const blocks = Array.from({ length: numBlocks }, (_, block) => block);
    return backend.send({
      migrationId: "m",
      destination: { instanceId: "b", address: "" },
      endpoint: {},
      sourceBlocks: blocks,
      destinationBlocks: blocks,
      deadlineMs: nowMs + 1e6,
      isBackground: true,
    }, new AbortController().signal);
  };
  await send(7);
  assert.deepEqual(pausesMs, [], "less than a piece");
  await send(20);
  assert.deepEqual(pausesMs, [31 * 160, 31 * 160], "behind 16 rounds each, but the last");
  await backend.close();
});

Deno.test("rayrpc backend: a buffer is used again once its round is answered, and not before", async () => {
  const calls: { payload: Uint8Array; answer(): void }[] = [];
  const call = (_: string, { payload }: { payload: Uint8Array }) => {
    const { promise, resolve } = Promise.withResolvers<{ data: null }>();
    calls.push({ payload, answer: () => resolve({ data: null }) });
    return promise;
  };
  const link = { call, close: () => Promise.resolve() } as unknown as BackendLink;
  const pool = arrayPool();
  await fill(pool, 1);
  const backend = new RayRpcBackend({
    pool,
    limits: { bufferBlocks: 1, numLayers: suiteLayout.numLayers },
    clock: realClock,
    links: { open: () => Promise.resolve(link), close: () => Promise.resolve() },
  });
  const send = (sourceBlocks: number[], signal: AbortSignal) =>
    backend.send({
      migrationId: "m",
      destination: { instanceId: "b", address: "" },
      endpoint: {},
      ...{ sourceBlocks, destinationBlocks: sourceBlocks },
      deadlineMs: realClock.nowMs() + PATIENCE_MS,
    }, signal);
  const assertHas = async (i: number, block: number) => {
    const run = { block, firstLayer: 0, numLayers: suiteLayout.numLayers };
    assert.deepEqual(calls[i].payload, await readRuns(pool, [run]), `call ${i}`);
  };
  const abort = new AbortController();
  const aborted = send([1, 2, 3, 4], abort.signal);
  await until(() => calls.length === 2, "two rounds are under way");
  for (let i = 0; i < 10; i++) await pause(0);
  assert.equal(calls.length, 2);
  abort.abort();
  await assert.rejects(aborted, /was aborted/);
  const sending = send([5, 6, 7, 8, 9], new AbortController().signal);
  for (let i = 2; i < 7; i++) {
    await until(() => calls.length === Math.min(7, i + 2), "two more rounds are under way");
    await assertHas(i, i + 3);
    if (i < 6) await assertHas(i + 1, i + 4);
    // What was aborted may still be on its way.
    for (const old of [0, 1]) await assertHas(old, old + 1);
    calls[i].answer();
  }
  await sending;
  assert.ok(new Set(calls.slice(2).map(({ payload }) => payload.buffer)).size <= 3);
  await backend.close();
});

Deno.test("rayrpc backend: a revocation waits for the write of a device that is under way, and so does its buffer", async () => {
  const pool = new ExampleDevicePool(suiteLayout, SUITE_BLOCKS);
  const { destination: { backend }, close } = await newPair(
    { bufferBlocks: 1, numLayers: 1 },
    () => pool,
  );
  await backend.grant("m", [1]);
  await backend.grant("n", [2]);
  const data = { migrationId: "m", blocks: [1], firstLayer: 0, numLayers: 1 };
  const payload = new Uint8Array(layerBytes(suiteLayout)).fill(9);
  let isWriting = false, isGivenBack = false;
  const giveBack = () => {
    assert.ok(!isWriting, "the device still reads it");
    isGivenBack = true;
  };
  const write = pool.write.bind(pool);
  pool.write = async (runs, bytes) => {
    isWriting = true;
    await write(runs, bytes);
    isWriting = false;
  };
  const received = backend.calls.migrate_blocks({ data, payload, giveBack });
  await backend.revoke("n");
  assert.ok(isWriting, "the write is of another migration");
  await backend.revoke("m");
  assert.ok(!isWriting);
  await received;
  assert.ok(isGivenBack);
  assert.equal((await readRuns(pool, [{ block: 1, firstLayer: 0, numLayers: 1 }]))[0], 9);
  await close();
});
