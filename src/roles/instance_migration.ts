import { parseAddress } from "../bus/address.ts";
import type { Address, Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { EngineOptions, MigrationBackendOptions, TransferOptions } from "../core/options.ts";
import type { ExecutorInfo } from "../executor/executor.ts";
import { AccountedKvPool } from "../kv/pool/accounted_kv_pool.ts";
import { HostKvPool } from "../kv/pool/host_kv_pool.ts";
import type { KvPool } from "../kv/pool/pool.ts";
import type { MigrationBackend, TransferLimits } from "../kv/transfer/backend.ts";
import { GlooBackend } from "../kv/transfer/gloo/gloo_backend.ts";
import { fitLimits } from "../kv/transfer/limits.ts";
import { RayRpcBackend } from "../kv/transfer/rayrpc/rayrpc_backend.ts";
import { computesOnCpu } from "../instance/engine/engine_config.ts";
import type { InstanceMigration } from "../instance/instance.ts";
import { InstanceLinks } from "../instance/llumlet/migration_peers.ts";

export interface ProcessMigrationArgs {
  readonly instanceId: InstanceId;
  readonly managerAddress: Address;
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
    copiesBesideSteps: !computesOnCpu(engine.device),
    async openBackend({ info }) {
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
      const backend = await openBackend(args, info, pool, limits);
      backend.failed?.then((reason) => log.error(`requests stay on this instance: ${reason}`));
      return backend;
    },
  };
}

/** The pool of an executor; null when its memory has no address in this process. */
function openPool(info: ExecutorInfo, device: EngineOptions["device"]): KvPool | null {
  const { poolAddress, layout, numBlocks } = info;
  if (device === "null" || device === "sim") return new AccountedKvPool(layout, numBlocks);
  return poolAddress === null ? null : new HostKvPool(poolAddress, layout, numBlocks);
}

/**
 * @throws {UsageError} a backend that is not available
 * @throws {UnavailableError} it cannot be opened
 */
async function openBackend(
  { options, instanceId, managerAddress, bus, clock, log }: ProcessMigrationArgs,
  { model, layout, numBlocks }: ExecutorInfo,
  pool: KvPool,
  limits: TransferLimits,
): Promise<MigrationBackend> {
  switch (options.migrationBackend) {
    case "gloo":
      if (leavesHost(managerAddress)) {
        log.warn(
          "--migration-backend gloo does not encrypt: who can read the network reads the KV cache of " +
            "requests that move; rayrpc encrypts",
        );
      }
      return await GlooBackend.open({
        identity: { instanceId, model, layout },
        pool: { address: pool instanceof HostKvPool ? pool.address : null, layout },
        numBlocks,
        host: hostOf(managerAddress),
        initTimeoutMs: options.migrationBackendInitTimeout * 1000,
        limits,
        clock,
      });
    case "rayrpc":
      return new RayRpcBackend({
        pool,
        limits,
        clock,
        links: new InstanceLinks(bus, clock, () => {}),
      });
    default:
      throw new UsageError(`--migration-backend ${options.migrationBackend} is not available yet`);
  }
}

/** Other instances may be on other hosts. */
function leavesHost(managerAddress: Address): boolean {
  const manager = parseAddress(managerAddress);
  return manager.scheme === "tcp" && !/^(localhost|127\.|::1$)/.test(manager.host);
}

/** Where other instances reach this one: on the manager's network interface. */
function hostOf(managerAddress: Address): string {
  const manager = parseAddress(managerAddress);
  return manager.scheme === "tcp" && manager.host !== "localhost" ? manager.host : "127.0.0.1";
}
