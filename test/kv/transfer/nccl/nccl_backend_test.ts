/** The nccl backend over the software device, its control channel over the bus. */
import assert from "node:assert/strict";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { Nccl } from "../../../../ffi/nccl/nccl.ts";
import { parseAddress } from "../../../../src/bus/address.ts";
import type { Listener } from "../../../../src/bus/bus.ts";
import { openBus } from "../../../../src/bus/open_bus.ts";
import { realClock } from "../../../../src/core/clock.ts";
import { RequestError, UnavailableError } from "../../../../src/core/errors.ts";
import type { KvLayout } from "../../../../src/kv/layout.ts";
import { MigrationPeers } from "../../../../src/instance/llumlet/migration_peers.ts";
import type { NcclBackend } from "../../../../src/kv/transfer/nccl/nccl_backend.ts";
import { ncclOver } from "../../../../src/kv/transfer/nccl/open_nccl.ts";
import type { ShardedNcclBackend } from "../../../../src/kv/transfer/nccl/sharded_nccl_backend.ts";
import { ENDLESS_MS, PATIENCE_MS, pause, until, watch, within } from "../../../patience.ts";
import { LossyLink } from "../../../conformance/lossy_link.ts";
import { contents, fill } from "../../../conformance/kv_pool.ts";
import {
  type BackendEnd,
  type BackendPair,
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";
import { SoftwareNccl } from "../../../ffi/nccl/software_nccl.ts";
import { directory } from "../../../ffi/software_device/device.ts";
import { SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";

interface NcclEnd extends BackendEnd {
  readonly instanceId: string;
  readonly backend: NcclBackend | ShardedNcclBackend;
  readonly pool: SoftwareCudaPool;
  readonly listener: Listener;
}

const softwareNccl = directory === null ? null : new SoftwareNccl(`${directory}libnccl.so.2`);

async function newEnd(instanceId: string, layout: KvLayout, model = "model"): Promise<NcclEnd> {
  const pool = new SoftwareCudaPool(layout, SUITE_BLOCKS);
  const cuda = openCuda({ from: directory! });
  const bus = openBus({ clusterKey: "insecure" });
  const openLinks = () => new MigrationPeers(bus, realClock, () => {});
  const context = { instanceId, model, pool, clock: realClock, openLinks };
  const nccl = Nccl.open({ from: directory! });
  const backend = ncclOver(context, cuda, nccl, (ordinal) => `GPU-${instanceId}-${ordinal}`);
  const listener = await bus.listen("tcp:127.0.0.1:0", { calls: backend.calls });
  return { instanceId, backend, pool, listener };
}

async function newPair(layouts: readonly [KvLayout, KvLayout] = [suiteLayout, suiteLayout]) {
  softwareNccl!.reset();
  const before = softwareNccl!.counts();
  const ends = [await newEnd("a", layouts[0]), await newEnd("b", layouts[1])] as const;
  const members = ends.map(({ instanceId, backend }, rank) => ({
    ...{ instanceId, rank, endpoint: JSON.parse(JSON.stringify(backend.endpoint)) },
  }));
  const group = { secret: "", generation: 1, members };
  const failedPeers = await Promise.all(ends.map(({ backend }) => backend.join(group)));
  const [source, destination] = ends;
  return {
    source,
    destination,
    failedPeers,
    addressOf: (end: BackendEnd) => (end as NcclEnd).listener.address,
    instanceIdOf: (end: BackendEnd) => (end as NcclEnd).instanceId,
    nowMs: () => realClock.nowMs(),
    settle: <T>(promise: Promise<T>) => promise,
    async close() {
      softwareNccl!.reset();
      await Promise.all(ends.map(({ backend }) => backend.close()));
      for (const { listener, pool } of ends) {
        await listener.close();
        await pool.close();
      }
      const { threads } = before;
      await until(() => softwareNccl!.counts().threads <= threads, "NCCL's threads have ended");
      assert.deepEqual(softwareNccl!.counts(), before, "left behind");
    },
  } satisfies BackendPair & { failedPeers: unknown };
}

testMigrationBackend({
  name: "nccl",
  hasData: true,
  ignoresLimits: true,
  skipped: directory === null ? "no C++ compiler for the software device" : undefined,
  open: () => newPair(),
});

const divided = { ...suiteLayout, shards: 2 };
testMigrationBackend({
  name: "nccl, blocks on two devices",
  hasData: true,
  ignoresLimits: true,
  skipped: directory === null ? "no C++ compiler for the software device" : undefined,
  open: () => newPair([divided, divided]),
});

function ncclTest(name: string, run: (pair: Awaited<ReturnType<typeof newPair>>) => Promise<void>) {
  const reason = directory === null ? " (skipped: no C++ compiler for the software device)" : "";
  Deno.test({
    name: `nccl backend: ${name}${reason}`,
    ignore: directory === null,
    fn: async () => {
      const pair = await newPair();
      try {
        await fill(pair.source.pool, 1);
        await fill(pair.destination.pool, 2);
        await run(pair);
      } finally {
        await pair.close();
      }
    },
  });
}

type Pair = Awaited<ReturnType<typeof newPair>>;

/** Sends block 1 to block 3. */
function send(
  pair: Pair,
  { leftMs = PATIENCE_MS, address = pair.destination.listener.address, signal = never }: {
    leftMs?: number;
    address?: string;
    signal?: AbortSignal;
  } = {},
) {
  return pair.source.backend.send({
    migrationId: "m",
    destination: { instanceId: "b", address },
    endpoint: pair.destination.backend.endpoint,
    sourceBlocks: [1],
    destinationBlocks: [3],
    deadlineMs: realClock.nowMs() + leftMs,
  }, signal);
}

const never = new AbortController().signal;

/** A transfer goes over, with bytes of its own. */
async function works(pair: Pair, address?: string): Promise<void> {
  await fill(pair.source.pool, 40 + ++fills);
  await pair.destination.backend.grant("m", [3]);
  await send(pair, { address });
  await pair.destination.backend.revoke("m");
  const [source, destination] = [pair.source.pool, pair.destination.pool];
  assert.deepEqual((await contents(destination))[3], (await contents(source))[1]);
}
let fills = 0;

/** Waits until NCCL's kernels of a transfer run, which `KERNEL_MS` holds back. */
async function untilMoving(): Promise<void> {
  await until(() => softwareNccl!.counts().kernels > 0, "a kernel runs");
}

for (
  const [name, fault, value] of [
    ["never posts", "GROUP_MS", ENDLESS_MS],
    ["joins late", "INIT_MS", 250], // the id is used up within 500 ms
    ["is slow", "KERNEL_MS", ENDLESS_MS],
  ] as const
) {
  ncclTest(
    `a destination that ${name} ends at the deadline, and can be used again`,
    async (pair) => {
      if (fault !== "INIT_MS") await works(pair);
      softwareNccl!.set(fault, value, 1);
      await pair.destination.backend.grant("m", [3]);
      const sending = within(send(pair, { leftMs: 100 }), "the transfer ends");
      await assert.rejects(sending, UnavailableError);
      softwareNccl!.reset();
      await within(pair.destination.backend.revoke("m"), "the revocation");
      await works(pair);
    },
  );
}

ncclTest("a revocation waits until NCCL writes no more, at both ends", async (pair) => {
  await works(pair);
  softwareNccl!.set("KERNEL_MS", ENDLESS_MS);
  softwareNccl!.set("ABORT_MS", ENDLESS_MS, 0);
  await pair.destination.backend.grant("m", [3]);
  const sending = send(pair);
  sending.catch(() => {});
  await untilMoving();
  const revoked = pair.destination.backend.revoke("m");
  const state = watch(revoked);
  await pause(30);
  assert.ok(!state.isSettled, "the source's abort has not returned");
  softwareNccl!.reset();
  await within(revoked, "the revocation");
  await assert.rejects(sending, /migration m was revoked/);
  await works(pair);
});

ncclTest("an abort of the source is one of the destination", async (pair) => {
  await works(pair);
  softwareNccl!.set("KERNEL_MS", ENDLESS_MS);
  await pair.destination.backend.grant("m", [3]);
  const controller = new AbortController();
  const sending = send(pair, { signal: controller.signal });
  sending.catch(() => {});
  await untilMoving();
  controller.abort();
  await assert.rejects(sending, /was aborted/);
  await pair.destination.backend.revoke("m");
  softwareNccl!.reset();
  await works(pair);
});

ncclTest(
  "the control connection breaks in mid-transfer: both ends abort, and go on after it",
  async (pair) => {
    const { port } = parseAddress(pair.destination.listener.address) as { port: number };
    const link = new LossyLink(port);
    const address = `tcp:127.0.0.1:${link.port}`;
    await works(pair, address);
    softwareNccl!.set("KERNEL_MS", ENDLESS_MS);
    await pair.destination.backend.grant("m", [3]);
    const sending = send(pair, { address });
    sending.catch(() => {});
    await untilMoving();
    link.halfClose("near");
    link.halfClose("far");
    await assert.rejects(sending, UnavailableError);
    softwareNccl!.reset();
    await works(pair, address);
    link.close();
  },
);

ncclTest(
  "the control connection hangs: the destination gets its blocks back when it works again",
  async (pair) => {
    const { port } = parseAddress(pair.destination.listener.address) as { port: number };
    const link = new LossyLink(port);
    const address = `tcp:127.0.0.1:${link.port}`;
    await works(pair, address);
    softwareNccl!.set("KERNEL_MS", ENDLESS_MS);
    await pair.destination.backend.grant("m", [3]);
    const sending = send(pair, { address, leftMs: 300 });
    sending.catch(() => {});
    await untilMoving();
    link.set({ then: "hang", afterBytes: 0 });
    await assert.rejects(sending, UnavailableError);
    const revoked = pair.destination.backend.revoke("m");
    const state = watch(revoked);
    await pause(100);
    assert.ok(!state.isSettled, "the source cannot say that it has aborted");
    link.set({});
    link.halfClose("near"); // the connection that hangs
    await within(revoked, "the revocation");
    softwareNccl!.reset();
    await works(pair, address);
    link.close();
  },
);

ncclTest("a source that has left the group holds no blocks", async (pair) => {
  await works(pair);
  softwareNccl!.set("KERNEL_MS", ENDLESS_MS);
  softwareNccl!.set("ABORT_MS", ENDLESS_MS, 0);
  await pair.destination.backend.grant("m", [3]);
  const sending = send(pair);
  sending.catch(() => {});
  await untilMoving();
  const { destination } = pair;
  const revoked = destination.backend.revoke("m");
  await destination.backend.join({
    ...{ secret: "", generation: 2 },
    members: [{ instanceId: "b", rank: 0, endpoint: destination.backend.endpoint }],
  });
  await within(revoked, "the revocation does not wait for the source's abort");
  softwareNccl!.reset();
  await assert.rejects(sending, UnavailableError);
  await assert.rejects(send(pair), /is not in this instance's migration group/);
});

ncclTest(
  "instances on one device, of other models or layouts are refused, with the reason",
  async (pair) => {
    const { source, destination } = pair;
    const other = destination.backend.endpoint;
    const join = (endpoint: Record<string, unknown>) =>
      source.backend.join({
        ...{ secret: "", generation: 2 },
        members: [{ instanceId: "b", rank: 1, endpoint }],
      });
    assert.deepEqual(pair.failedPeers, [[], []]);
    for (
      const [endpoint, reason] of [
        [
          { ...other, device: source.backend.endpoint.device },
          /both instances are on the device GPU-a/,
        ],
        [{ ...other, model: "other" }, /the model is model here and other there/],
        [{ ...other, layout: { ...suiteLayout, blockSize: 8 } }, /blockSize is 4 here and 8 there/],
        [{}, /the other instance has no NCCL/],
      ] as const
    ) {
      const [failed] = await join(endpoint);
      assert.match(failed.reason, reason);
    }
  },
);

Deno.test({
  name:
    "nccl backend: an instance with blocks on another number of devices, or on the same one, is refused",
  ignore: directory === null,
  fn: async () => {
    const mixed = await newPair([divided, suiteLayout]);
    const reasons = mixed.failedPeers.map(([failed]) => failed.reason);
    await mixed.close();
    assert.match(reasons[0], /^shards is 2 here and undefined there/);
    assert.match(reasons[1], /^shards is undefined here and 2 there/);

    const pair = await newPair([divided, divided]);
    const backend = pair.source.backend as ShardedNcclBackend;
    const other = pair.destination.backend.endpoint as ShardedNcclBackend["endpoint"];
    const reasonFor = async (shards: unknown) => {
      const members = [{ instanceId: "b", rank: 1, endpoint: { ...other, shards } }];
      const [failed] = await backend.join({ secret: "", generation: 2, members });
      return failed?.reason;
    };
    assert.equal(await reasonFor(other.shards), undefined);
    const { device } = backend.endpoint.shards[1];
    assert.match(
      (await reasonFor([other.shards[0], { ...other.shards[1], device }]))!,
      /both instances are on the device GPU-a-1/,
    );
    for (const shards of [undefined, [], other.shards.slice(1)]) {
      assert.equal(await reasonFor(shards), "its blocks are not on 2 devices");
    }
    for (const shard of [undefined, -1, 2, "0"]) {
      const data = { topic: "tell" as const, data: { instanceId: "b", boot: "x", shard } };
      assert.throws(() => backend.calls.migrate_backend({ data }), /names one of 2 devices/);
    }
    await pair.close();
  },
});

ncclTest("calls that no instance makes are refused", async ({ destination: { backend } }) => {
  const caller = { instanceId: "a", boot: "x" };
  const tell = (data: unknown) => backend.calls.migrate_backend({ data: { topic: "tell", data } });
  assert.throws(() => tell(null), RequestError);
  assert.throws(() => tell({ ...caller, instanceId: "c", message: {} }), /migration group/);
  assert.throws(() => tell({ ...caller, message: {} }), RequestError);
  assert.throws(
    () => tell({ ...caller, message: { from: "destination", kind: "ready", epoch: 0 } }),
    RequestError,
  );
  await assert.rejects(
    (async () => await backend.calls.migrate_backend({ data: { topic: "hear", data: {} } }))(),
    RequestError,
  );
});
