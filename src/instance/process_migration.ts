import type { Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { EngineOptions, MigrationBackendOptions, TransferOptions } from "../core/options.ts";
import type { ExecutorInfo } from "../executor/executor.ts";
import { AccountedKvPool } from "../kv/accounted_kv_pool.ts";
import { HostKvPool } from "../kv/host_kv_pool.ts";
import type { KvPool } from "../kv/pool.ts";
import type { MigrationBackend, TransferLimits } from "../kv/transfer/backend.ts";
import { fitLimits } from "../kv/transfer/limits.ts";
import { RayRpcBackend } from "../kv/transfer/rayrpc/rayrpc_backend.ts";
import type { InstanceMigration } from "./instance.ts";
import { InstanceLinks } from "./llumlet/instance_links.ts";

export interface ProcessMigrationArgs {
  readonly engine: Pick<EngineOptions, "device">;
  readonly options: TransferOptions & MigrationBackendOptions;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly log: Log;
}

/** How requests move to and from an instance that is a process. */
export function processMigration(args: ProcessMigrationArgs): InstanceMigration {
  const { engine, options, log } = args;
  return {
    limits: options,
    openBackend({ info }) {
      const pool = openPool(info, engine.device);
      if (pool === null) {
        log.warn(
          `requests stay on this instance: the KV cache of ${info.description} is not addressable`,
        );
        return null;
      }
      const wanted = {
        bufferBlocks: options.migrationBufferBlocks,
        numLayers: options.migrationNumLayers,
      };
      const { limits, warning } = fitLimits(wanted, pool);
      if (warning !== null) log.warn(warning);
      return openBackend(args, pool, limits);
    },
  };
}

/** The pool of an executor; null when its memory has no address in this process. */
function openPool(info: ExecutorInfo, device: EngineOptions["device"]): KvPool | null {
  const { poolAddress, layout, numBlocks } = info;
  if (device === "null" || device === "sim") return new AccountedKvPool(layout, numBlocks);
  return poolAddress === null ? null : new HostKvPool(poolAddress, layout, numBlocks);
}

/** @throws {UsageError} a backend that is not available */
function openBackend(
  { options, bus, clock }: ProcessMigrationArgs,
  pool: KvPool,
  limits: TransferLimits,
): MigrationBackend {
  switch (options.migrationBackend) {
    case "rayrpc":
      return new RayRpcBackend({
        pool,
        limits,
        clock,
        links: new InstanceLinks(bus, clock, () => {}),
      });
    default:
      throw new UsageError(
        `--migration-backend ${options.migrationBackend} is not available yet; choose rayrpc`,
      );
  }
}
