/** kvtransfer between pools of CUDA devices, over the software device: in one process and between two. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import type { DevicePool } from "../../../../src/kv/pool/pool.ts";
import { openCudaIpc } from "../../../../src/kv/transfer/kvtransfer/cuda_ipc.ts";
import { contents, fill } from "../../../conformance/kv_pool.ts";
import {
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";
import { configure, counts, directory, reset } from "../../../ffi/software_device/device.ts";
import { missing, SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { openEnd, openPair, peerBlock, type PullEnd, transferTo } from "./support.ts";
import { PATIENCE_MS } from "../../../patience.ts";

const newPool = () => new SoftwareCudaPool(suiteLayout, SUITE_BLOCKS);
const blocks = Array.from({ length: SUITE_BLOCKS }, (_, block) => block);

testMigrationBackend({
  name: "kvtransfer, cuda_ipc",
  hasData: true,
  ignoresLimits: true,
  skipped: missing ?? undefined,
  open: () => openPair({ pool: newPool() }, { pool: newPool() }),
});

/** An end in this process, and another process whose blocks each hold their number. */
interface Ends {
  readonly here: PullEnd;
  readonly peer: Deno.ChildProcess;
  /** Of the peer's entry. */
  readonly generation: string;
  readonly naming: string;
}

function test(name: string, body: (ends: Ends) => Promise<void>, layout = suiteLayout): void {
  Deno.test({
    name: `cuda_ipc between processes: ${name}${missing === null ? "" : ` (skipped: ${missing})`}`,
    ignore: missing !== null,
    fn: async () => {
      const naming = Deno.makeTempDirSync();
      const pool = new SoftwareCudaPool(layout, SUITE_BLOCKS);
      const here = await openEnd("here", naming, { pool });
      const { peer, generation } = await startPeer(naming, layout.shards);
      try {
        await here.backend.grant("m", blocks);
        await fill(pool, 1);
        await body({ here, peer, generation, naming });
      } finally {
        await here.backend.close();
        await here.listener.close();
        await pool.close();
        await kill(peer);
        Deno.removeSync(naming, { recursive: true });
      }
    },
  });
}

async function startPeer(
  naming: string,
  shards?: number,
): Promise<Pick<Ends, "peer" | "generation">> {
  const script = `${import.meta.dirname}/_ipc_peer.ts`;
  const peer = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      script,
      naming,
      `${SUITE_BLOCKS}`,
      ...(shards ? [`${shards}`] : []),
    ],
    stdout: "piped",
  }).spawn();
  const reader = peer.stdout.getReader();
  await reader.read();
  await reader.cancel();
  const { name } = [...Deno.readDirSync(naming)].find(({ name }) => name.startsWith("peer."))!;
  const { generation } = JSON.parse(Deno.readTextFileSync(`${naming}/${name}`));
  return { peer, generation };
}

async function kill(peer: Deno.ChildProcess): Promise<void> {
  try {
    peer.kill("SIGKILL");
  } catch {
    // It has ended.
  }
  await peer.status;
}

/** Pulls blocks of the peer to the places of their mirror images. */
function pull({ here, generation }: Ends, isBackground = false, timeoutMs = PATIENCE_MS) {
  return here.backend.calls.migrate_pull({
    data: {
      migrationId: "m",
      sourceId: "peer",
      generation,
      sourceBlocks: blocks,
      destinationBlocks: blocks.toReversed(),
      timeoutMs,
      isBackground,
    },
  });
}

async function assertPulled({ here }: Ends): Promise<void> {
  (await contents(here.pool)).forEach((bytes, block) => {
    const expected = peerBlock(here.pool.layout, SUITE_BLOCKS - 1 - block);
    assert.deepEqual(bytes, expected, `block ${block}`);
  });
}

test("blocks get to their places, and the peer's memory is opened once", async (ends) => {
  for (const isBackground of [false, true, false]) {
    await fill(ends.here.pool, 1);
    await pull(ends, isBackground);
    await assertPulled(ends);
    assert.equal(counts().opened, 1);
  }
  await ends.here.backend.close();
  assert.equal(counts().opened, 0);
});

test("blocks on two devices get to those of the same rank", async (ends) => {
  for (const isBackground of [false, true]) {
    await fill(ends.here.pool, 1);
    await pull(ends, isBackground);
    await assertPulled(ends);
  }
  assert.equal(counts().opened, 2);
}, { ...suiteLayout, shards: 2 });

test("a peer that was killed is refused, and one that starts anew is opened anew", async (ends) => {
  await pull(ends);
  await kill(ends.peer);
  const before = await contents(ends.here.pool);
  await assert.rejects(pull(ends), { name: "UnavailableError", message: /the source, has ended/ });
  assert.deepEqual(await contents(ends.here.pool), before);
  const next = await startPeer(ends.naming);
  try {
    await assert.rejects(pull({ ...ends, generation: "other" }), /has no entry in the naming/);
    await pull({ ...ends, ...next });
    await assertPulled(ends);
    assert.equal(counts().opened, 1, "the memory of the dead one is closed");
  } finally {
    await kill(next.peer);
  }
});

test("a peer killed while its blocks are copied fails the transfer", async (ends) => {
  configure("order=late,progress=50");
  const pulling = pull(ends);
  pulling.catch(() => {});
  await kill(ends.peer);
  // Whole, if the copies came first; else refused. Never garbage that counts as right.
  await pulling.then(() => assertPulled(ends), (error) => {
    assert.ok(error instanceof UnavailableError, `${error}`);
  });
});

test("a revocation waits for the copy under way, and then nothing is written", async (ends) => {
  const pulling = pull(ends);
  pulling.catch(() => {});
  await ends.here.backend.revoke("m");
  const after = await contents(ends.here.pool);
  await pulling.catch((error) => assert.match(error.message, /was revoked/));
  assert.deepEqual(await contents(ends.here.pool), after);
  await assert.rejects(pull(ends), /may write nothing/);
});

test("a device that fails ends the transfer with the reason of the library", async (ends) => {
  await pull(ends);
  configure("fail-work=1");
  try {
    await assert.rejects(pull(ends), {
      name: "UnavailableError",
      message: /memory of process \d+ .* cannot be copied: .*700/,
    });
  } finally {
    await ends.here.backend.close();
    reset();
  }
});

test("a source whose blocks are in other memory is refused, and both are named", async (ends) => {
  const pool = new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
  const host = await openEnd("on the host", ends.naming, { pool });
  await host.backend.grant("m", blocks);
  const data = {
    ...{ migrationId: "m", sourceId: "peer", generation: ends.generation },
    ...{ sourceBlocks: [1], destinationBlocks: [2], timeoutMs: 1_000, isBackground: false },
  };
  await assert.rejects(
    host.backend.calls.migrate_pull({ data }),
    /is in memory "host" here and "device" there \(peer\)/,
  );
  await host.backend.close();
  await host.listener.close();
});

Deno.test({
  name: `cuda_ipc: a device that cannot export its pool says so${
    missing === null ? "" : ` (skipped: ${missing})`
  }`,
  ignore: missing !== null,
  fn: async () => {
    const pool = newPool();
    const cuda = openCuda({ from: directory! });
    const inside = Object.create(pool, { address: { value: 1n }, ordinal: { value: 0 } });
    assert.throws(() => openCudaIpc(inside, cuda), { name: "UnavailableError" });
    await pool.close();
  },
});

Deno.test({
  name: `cuda_ipc: a source on another host is refused, with the backends to choose instead${
    missing === null ? "" : ` (skipped: ${missing})`
  }`,
  ignore: missing !== null,
  fn: async () => {
    const elsewhere = { ...thisProcess(), hostname: "elsewhere", bootId: "b" };
    const pair = await openPair({ pool: newPool(), process: elsewhere }, { pool: newPool() });
    const { source, destination } = pair;
    await destination.backend.grant("m", [1]);
    const transfer = transferTo(destination, destination.listener.address, [1]);
    await assert.rejects(source.backend.send(transfer, new AbortController().signal), {
      name: "UnavailableError",
      message: /cuda_ipc moves blocks within one host\. Choose .* gloo, nccl or rayrpc/,
    });
    await pair.close();
  },
});

Deno.test("cuda_ipc: what is mapped on a device is unmapped on that one", async () => {
  let current = -1;
  const mapped = new Map<bigint, number>(), closed: [opened: number, closed: number][] = [];
  const cuda = {
    setDevice: (ordinal: number) => current = ordinal,
    priorityRange: () => ({ least: 0, greatest: 0 }),
    createStream: () => 1n,
    createEvent: () => 2n,
    ipcMemHandle: () => new Uint8Array(64),
    openIpcMemHandle: () => {
      const address = BigInt(mapped.size + 1) << 32n;
      mapped.set(address, current);
      return address;
    },
    closeIpcMemHandle: (address: bigint) => closed.push([mapped.get(address)!, current]),
    copyBatch: () => {},
    recordEvent: () => {},
    queryEvent: () => true,
    destroyEvent: () => {},
    destroyStream: () => {},
  } as unknown as Cuda;
  const pool = {
    ...{ layout: { ...suiteLayout, shards: 2 }, numBlocks: SUITE_BLOCKS },
    ...{ ordinal: 0, address: 0n, others: [{ ordinal: 1, address: 0n }] },
  } as unknown as DevicePool;
  const { puller, ipcHandle } = openCudaIpc(pool, cuda);
  const stat = Deno.readTextFileSync(`/proc/${Deno.ppid}/stat`);
  const startTicks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  const process = { ...thisProcess(), pid: Deno.ppid, startTicks };
  await puller.pull({
    ...{ migrationId: "m", generation: "g", sourceBlocks: [1], destinationBlocks: [2] },
    source: { process, address: 0n, ipcHandle, ucx: null },
    ...{ timeoutMs: PATIENCE_MS, isBackground: false },
  });
  await puller.close();
  assert.deepEqual(closed, [[0, 0], [1, 1]]);
});
