import type { MigrationGroupMember } from "../../../../src/core/protocol/migration.ts";
import { realClock } from "../../../../src/core/clock.ts";
import { AccountedKvPool } from "../../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { describePool } from "../../../../src/kv/pool/open_pool.ts";
import type { KvLayout } from "../../../../src/kv/layout.ts";
import type { KvPool } from "../../../../src/kv/pool/pool.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import { GlooBackend } from "../../../../src/kv/transfer/gloo/gloo_backend.ts";
import { SUITE_BLOCKS, suiteLayout } from "../../../conformance/migration_backend.ts";
import { PATIENCE_MS } from "../../../patience.ts";

export interface GlooEnd {
  readonly instanceId: string;
  readonly backend: GlooBackend;
  readonly pool: KvPool;
}

export interface EndShape {
  readonly limits?: TransferLimits;
  readonly hasMemory?: boolean;
  /** Makes another pool. */
  readonly newPool?: (layout: KvLayout, numBlocks: number) => KvPool;
  readonly layout?: KvLayout;
  readonly numBlocks?: number;
  readonly model?: string;
  readonly initTimeoutMs?: number;
  readonly host?: string;
  readonly isSealed?: boolean;
}

export async function openEnd(instanceId: string, shape: EndShape = {}): Promise<GlooEnd> {
  const { layout = suiteLayout, numBlocks = SUITE_BLOCKS, hasMemory = true } = shape;
  const pool = shape.newPool !== undefined
    ? shape.newPool(layout, numBlocks)
    : hasMemory
    ? new ArrayKvPool(layout, numBlocks)
    : new AccountedKvPool(layout, numBlocks);
  const backend = await GlooBackend.open({
    identity: { instanceId, model: shape.model ?? "m", layout },
    pool: { address: pool.memory === "host" ? pool.address : null, layout },
    devicePool: pool.memory === "device" ? describePool(pool) : undefined,
    numBlocks,
    host: shape.host ?? "127.0.0.1",
    isSealed: shape.isSealed ?? false,
    initTimeoutMs: shape.initTimeoutMs ?? PATIENCE_MS,
    limits: shape.limits ?? { bufferBlocks: 512, numLayers: layout.numLayers },
    clock: realClock,
    startWorker: () =>
      new Worker(new URL("./_transfer_worker.ts", import.meta.url), { type: "module" }),
  });
  return { instanceId, backend, pool };
}

export function membersOf(ends: readonly GlooEnd[]): MigrationGroupMember[] {
  return ends.map(({ instanceId, backend }, rank) => ({
    instanceId,
    rank,
    endpoint: backend.endpoint,
  }));
}

/** All of them in one group, as the manager does it. */
export async function form(ends: readonly GlooEnd[], generation = 1, secret = "s") {
  const group = { secret, generation, members: membersOf(ends) };
  return await Promise.all(ends.map(({ backend }) => backend.join(group)));
}
