import type { MigrationGroupMember } from "../../../../src/core/protocol/migration.ts";
import { type Clock, realClock } from "../../../../src/core/clock.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import type { KvPool } from "../../../../src/kv/pool/pool.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import type { HostSecurity } from "../../../../src/kv/transfer/backend_kind.ts";
import { GrpcBackend } from "../../../../src/kv/transfer/grpc/grpc_backend.ts";
import { SUITE_BLOCKS, suiteLayout } from "../../../conformance/migration_backend.ts";
import { PATIENCE_MS } from "../../../patience.ts";

export interface GrpcEnd {
  readonly instanceId: string;
  readonly backend: GrpcBackend;
  readonly pool: KvPool;
}

export interface EndShape {
  readonly pool?: KvPool;
  readonly limits?: TransferLimits;
  readonly model?: string;
  readonly listenAt?: { readonly hostname: string; readonly port: number };
  readonly clock?: Clock;
  readonly security?: HostSecurity | null;
}

export function openEnd(instanceId: string, shape: EndShape = {}): GrpcEnd {
  const pool = shape.pool ?? new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
  const backend = GrpcBackend.open({
    instanceId,
    model: shape.model ?? "m",
    pool,
    limits: shape.limits ?? { bufferBlocks: 512, numLayers: pool.layout.numLayers },
    clock: shape.clock ?? realClock,
    listenAt: shape.listenAt ?? { hostname: "127.0.0.1", port: 0 },
    advertisedHost: "127.0.0.1",
    security: shape.security ?? null,
    initTimeoutMs: PATIENCE_MS,
  });
  return { instanceId, backend, pool };
}

export function membersOf(ends: readonly GrpcEnd[]): MigrationGroupMember[] {
  return ends.map(({ instanceId, backend }, rank) => ({
    ...{ instanceId, rank, endpoint: backend.endpoint },
  }));
}

/** All of them in one group, as the manager does it. */
export async function form(ends: readonly GrpcEnd[], secret = "s") {
  const group = { secret, generation: 1, members: membersOf(ends) };
  return await Promise.all(ends.map(({ backend }) => backend.join(group)));
}
