import { openCuda } from "../../../../ffi/cuda/open.ts";
import { openBus } from "../../../../src/bus/open_bus.ts";
import type { Listener } from "../../../../src/bus/bus.ts";
import { realClock } from "../../../../src/core/clock.ts";
import { MigrationPeers } from "../../../../src/instance/llumlet/migration_peers.ts";
import { blockBytes, type KvLayout, layerBytes, shardLayout } from "../../../../src/kv/layout.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import type { KvPool } from "../../../../src/kv/pool/pool.ts";
import type { BlockTransfer } from "../../../../src/kv/transfer/backend.ts";
import { openCudaIpc } from "../../../../src/kv/transfer/kvtransfer/cuda_ipc.ts";
import {
  type HostProcess,
  thisProcess,
} from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { KvTransferBackend } from "../../../../src/kv/transfer/kvtransfer/kvtransfer_backend.ts";
import { NamingDirectory } from "../../../../src/kv/transfer/kvtransfer/naming.ts";
import {
  type BackendEnd,
  type BackendPair,
  SUITE_BLOCKS,
  suiteLayout,
} from "../../../conformance/migration_backend.ts";
import { PATIENCE_MS } from "../../../patience.ts";
import { directory } from "../../../ffi/software_device/device.ts";

/** An instance's end that serves on the loopback interface. */
export interface PullEnd extends BackendEnd {
  readonly instanceId: string;
  readonly backend: KvTransferBackend;
  readonly listener: Listener;
}

/** A block of the other process in tests of cuda_ipc: its number, and of the next devices 100 more each. */
export function peerBlock(layout: KvLayout, block: number): Uint8Array<ArrayBuffer> {
  const shardBytes = layerBytes(shardLayout(layout)), { shards = 1 } = layout;
  return new Uint8Array(blockBytes(layout))
    .map((_, i) => block + 100 * (Math.floor(i / shardBytes) % shards));
}

/** What a process of another host says of its own. */
export const farHost = { hostname: "far", bootId: "other" };

export interface EndShape {
  readonly pool?: KvPool;
  readonly model?: string;
  readonly process?: HostProcess;
  /** File of libucp. */
  readonly ucx?: string;
}

export async function openEnd(
  instanceId: string,
  namingPath: string,
  shape: EndShape = {},
): Promise<PullEnd> {
  const { pool = new ArrayKvPool(suiteLayout, SUITE_BLOCKS), model = "m" } = shape;
  const bus = openBus({ clusterKey: "insecure" });
  const backend = await KvTransferBackend.open({
    ...{ instanceId, model, pool },
    device: pool.memory === "device"
      ? openCudaIpc(pool, openCuda({ from: directory! }))
      : undefined,
    naming: NamingDirectory.open(`file:${namingPath}`),
    process: shape.process ?? thisProcess(),
    ucx: shape.ucx === undefined ? undefined : { from: shape.ucx },
    clock: realClock,
    links: new MigrationPeers(bus, realClock, () => {}),
    startWorker: () =>
      new Worker(new URL("./_pull_worker.ts", import.meta.url), { type: "module" }),
  });
  const listener = await bus.listen("tcp:127.0.0.1:0", { calls: backend.calls });
  return { instanceId, backend, pool, listener };
}

/** Two ends in this process, which reads its own memory by the same system call as another's. */
export async function openPair(
  source: EndShape = {},
  destination: EndShape = {},
): Promise<BackendPair & Record<"source" | "destination", PullEnd>> {
  const naming = Deno.makeTempDirSync();
  const ends = {
    source: await openEnd("source", naming, source),
    destination: await openEnd("destination", naming, destination),
  };
  return {
    ...ends,
    addressOf: (end: BackendEnd) => (end as PullEnd).listener.address,
    instanceIdOf: (end: BackendEnd) => (end as PullEnd).instanceId,
    nowMs: () => realClock.nowMs(),
    settle: (promise) => promise,
    async close() {
      for (const { backend, listener, pool } of Object.values(ends)) {
        await backend.close();
        await listener.close();
        if (pool.memory === "device") await pool.close();
      }
      Deno.removeSync(naming, { recursive: true });
    },
  };
}

/** A transfer of blocks to the same places, for migration `m`. */
export function transferTo(
  destination: Pick<PullEnd, "instanceId" | "backend">,
  address: string,
  blocks: readonly number[],
  timeoutMs = PATIENCE_MS,
): BlockTransfer {
  return {
    migrationId: "m",
    destination: { instanceId: destination.instanceId, address },
    endpoint: destination.backend.endpoint,
    sourceBlocks: blocks,
    destinationBlocks: blocks,
    deadlineMs: realClock.nowMs() + timeoutMs,
  };
}
