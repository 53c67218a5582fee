/**
 * A migration backend of the program between two processes, from device pool to device pool, as instances
 * open it. `backends.ts NAME` is the source; it starts the destination, and kills it in the middle of a
 * last transfer.
 */
import { openBus } from "../../src/bus/open_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import type { MigrationBackendOptions } from "../../src/core/options.ts";
import { MigrationPeers } from "../../src/instance/llumlet/migration_peers.ts";
import { CudaKvPool } from "../../src/kv/pool/cuda/cuda_kv_pool.ts";
import type { DevicePool } from "../../src/kv/pool/pool.ts";
import type { BackendEndpoint, MigrationBackend } from "../../src/kv/transfer/backend.ts";
import { backendOfThread } from "../../src/kv/transfer/backend_thread.ts";
import type { BackendContext, BackendName } from "../../src/kv/transfer/backend_kind.ts";
import { backendKind, openBackend } from "../../src/kv/transfer/backends.ts";
import type { KvLayout } from "../../src/kv/layout.ts";
import { blockBytes, Device, expect, found, isShort, rateText } from "./device.ts";
import { Peer, say } from "./peers.ts";

const blocks = isShort ? 8 : 256, repeats = isShort ? 2 : 5;
const bytes = blocks * blockBytes;
const SEND_LIMIT_MS = 12_000;
const all = Array.from({ length: blocks }, (_, i) => i);

/** A block of Llama-3.1-8B. */
const layout: KvLayout = {
  format: "pattern",
  dtype: "bfloat16",
  numLayers: 32,
  numKvHeads: 8,
  headDim: 128,
  blockSize: 16,
};

/** Order of the source to the destination. */
interface Order {
  readonly name: BackendName;
  readonly naming: string;
  readonly source: BackendEndpoint;
}

interface End {
  readonly device: Device;
  readonly pool: DevicePool;
  readonly backend: MigrationBackend;
  /** Where it serves over the bus. */
  readonly address: string;
}

async function openEnd(name: BackendName, instanceId: string, naming: string): Promise<End> {
  const device = new Device();
  const { cuda } = device;
  const address = cuda.malloc(bytes);
  const pool = new CudaKvPool({ cuda, layout, numBlocks: blocks, address, ordinal: 0 });
  const options: MigrationBackendOptions = {
    enableMigration: true,
    migrationBackend: name,
    migrationBackendInitTimeout: 10,
    migrationInsecure: false,
    migrationBackendTransferType: "cuda_ipc",
    migrationBackendKvtransferNamingUrl: `file:${naming}`,
    migrationBackendServerAddress: "127.0.0.1:0",
  };
  const bus = openBus({ clusterKey: "insecure" });
  const context: BackendContext = {
    ...{ instanceId, model: "gpu_verify", pool, options, host: "127.0.0.1", clock: realClock },
    security: null, // both ends are on this host
    mayShareDevice: true,
    limits: { bufferBlocks: 16, numLayers: layout.numLayers },
    openLinks: () => new MigrationPeers(bus, realClock, () => {}),
  };
  const backend = await openBackend(name, instanceId, context);
  const listener = await bus.listen("tcp:127.0.0.1:0", { calls: backend.calls ?? {} });
  return { device, pool, backend, address: listener.address };
}

/** Both ends join the same group, where the backend has groups. */
async function join({ backend }: End, source: BackendEndpoint, destination: BackendEndpoint) {
  const members = [source, destination].map((endpoint, rank) => ({
    instanceId: rank === 0 ? "source" : "destination",
    rank,
    endpoint,
  }));
  const failed = await backend.join?.({ secret: "gpu_verify", generation: 1, members }) ?? [];
  if (failed.length > 0) throw new Error(failed.map(({ reason }) => reason).join("; "));
}

async function source(name: BackendName): Promise<void> {
  const naming = await Deno.makeTempDir();
  Deno.env.set("NCCL_HOSTID", "source"); // else NCCL sees two ranks on one device
  Deno.env.set("NCCL_SOCKET_IFNAME", "lo");
  const end = await openEnd(name, "source", naming);
  const { backend, device } = end;
  const order: Order = { name, naming, source: backend.endpoint };
  await using peer = new Peer("backends.ts", order, { NCCL_HOSTID: "destination" });
  const { endpoint, address } = await peer.next<{ endpoint: BackendEndpoint; address: string }>();
  await join(end, backend.endpoint, endpoint);
  expect((await peer.next<{ joined: boolean }>()).joined, "the destination joins");
  device.fill(end.pool.address, blocks, 1);
  const send = () =>
    backend.send({
      ...{ migrationId: "m", endpoint, sourceBlocks: all, destinationBlocks: all.toReversed() },
      destination: { instanceId: "destination", address },
      deadlineMs: realClock.nowMs() + SEND_LIMIT_MS,
    }, new AbortController().signal);
  const rates: number[] = [];
  for (let i = 0; i <= repeats; i++) {
    const { transferMs } = await send().catch((error) => refusal(name, error, device));
    if (i > 0) rates.push(transferMs);
  }
  const fastest = Math.min(...rates), median = rates.toSorted((a, b) => a - b)[repeats >> 1];
  await Deno.writeTextFile(`${naming}/check`, "");
  const { wrong } = await peer.next<{ wrong: number }>();
  expect(wrong === 0, `${wrong} vectors came over wrong`);
  found(
    `${name}, ${bytes >> 20} MiB`,
    `${rateText(bytes, median)} (median of ${repeats}; fastest ${rateText(bytes, fastest)})`,
  );
  await killDestination(name, peer, send, device, end.pool);
  await backend.close();
  await Deno.remove(naming, { recursive: true });
  Deno.exit(0);
}

/** NCCL may refuse two ranks on one GPU; that is a finding, and no failure of the program. */
function refusal(name: BackendName, error: Error, { cuda }: Device): never {
  if (!error.message.startsWith("NCCL: ") || cuda.library.softwareDevice) throw error;
  found(`${name}, two processes on one device`, `refused: ${error.message}`);
  Deno.exit(0);
}

/** kill -9 in the middle of a transfer: the send fails in time, and the source's blocks stay whole. */
async function killDestination(
  name: BackendName,
  peer: Peer,
  send: () => Promise<unknown>,
  device: Device,
  pool: DevicePool,
): Promise<void> {
  const startMs = performance.now();
  const sends = (async () => {
    for (;;) await send(); // until one fails
  })();
  sends.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 20));
  await peer.kill();
  const reason = await sends.catch((error: Error) => error.message);
  const tookMs = performance.now() - startMs;
  expect(tookMs < SEND_LIMIT_MS + 1_000, `the send failed only after ${tookMs} ms`);
  device.cuda.checkDevice();
  expect(device.wrongVectors(pool.address, blocks, 1) === 0, "the source's blocks after the kill");
  found(`${name}, destination killed`, `the send failed after ${Math.round(tookMs)} ms: ${reason}`);
}

/** The destination, until it is killed. */
async function destination({ name, naming, source }: Order): Promise<void> {
  const end = await openEnd(name, "destination", naming);
  const { backend, device, pool, address } = end;
  await backend.grant("m", all);
  say({ endpoint: backend.endpoint, address });
  await join(end, source, backend.endpoint);
  say({ joined: true });
  while (!await Deno.stat(`${naming}/check`).then(() => true, () => false)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  // Blocks arrive in the reverse order.
  const wrong = all.reduce((sum, block) => {
    const from = pool.address + BigInt((blocks - 1 - block) * blockBytes);
    return sum + device.wrongVectors(from, 1, 1, block);
  }, 0);
  say({ wrong });
}

const thread = backendOfThread(self.name ?? "");
const [word] = Deno.args;
if (thread !== null) await backendKind(thread).runThread!();
else if (word?.startsWith("{")) await destination(JSON.parse(word));
else await source(word as BackendName);
