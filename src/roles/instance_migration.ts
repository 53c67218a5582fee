import type { Bus } from "../bus/bus.ts";
import type { ClusterKey } from "../bus/tcp.ts";
import type { Clock } from "../core/clock.ts";
import type { Log } from "../core/log.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { EngineOptions, MigrationBackendOptions, TransferOptions } from "../core/options.ts";
import { executorKind } from "../executor/devices.ts";
import { openBackend } from "../kv/transfer/backends.ts";
import { fitLimits } from "../kv/transfer/limits.ts";
import type { InstanceMigration } from "../instance/instance.ts";
import { describePath, parseCrossover } from "../instance/llumlet/crossover.ts";
import { MigrationPeers } from "../instance/llumlet/migration_peers.ts";
import { hostSecurity } from "./host_security.ts";

export interface ProcessMigrationArgs {
  readonly instanceId: InstanceId;
  readonly engine: Pick<EngineOptions, "device">;
  readonly options: TransferOptions & MigrationBackendOptions;
  readonly bus: Bus;
  readonly clusterKey?: ClusterKey | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** How requests move to and from an instance in a process of its own. */
export function processMigration(args: ProcessMigrationArgs): InstanceMigration {
  const { engine, options, bus, clock, log } = args;
  const crossover = parseCrossover(options.migrationCrossover) ?? 0;
  return {
    limits: options,
    crossover,
    onPathMeasured: (measure) => log.info(describePath(measure, crossover)),
    copiesBesideSteps: !executorKind(engine.device).usesHostCores,
    async openBackend({ info, pool }, host) {
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
      const security = await hostSecurity(args.clusterKey ?? null, host);
      const backend = await openBackend(options.migrationBackend, info.description, {
        instanceId: args.instanceId,
        model: info.model,
        pool,
        limits,
        options,
        host: host ?? "127.0.0.1",
        security,
        clock,
        openLinks: () => new MigrationPeers(bus, clock, () => {}),
      });
      const { servesAt } = backend;
      if (servesAt !== undefined) {
        log.info(`migration backend ${backend.name} serves at ${servesAt}`);
      }
      backend.failed?.then((reason) => log.error(`requests stay on this instance: ${reason}`));
      return backend;
    },
  };
}
