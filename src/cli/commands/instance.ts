import { openBus } from "../../bus/open_bus.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { logger } from "../../core/log.ts";
import { MANAGER_WAIT_MS } from "../../core/manager_wait.ts";
import {
  type EngineWorker,
  loadThreadedExecutor,
} from "../../executor/thread/threaded_executor.ts";
import {
  checkHostName,
  checkHostOf,
  checkInstanceId,
  checkOwnAddress,
} from "../../instance/instance_socket.ts";
import { exitOnDefects } from "../../roles/defects.ts";
import { serveInstance } from "../../roles/instance.ts";
import type { InstanceOptions } from "../arguments/tables.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import type { MetricsPlace } from "../../roles/metrics_place.ts";
import { keepProgram } from "../../roles/old_programs.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { ServiceManager } from "../../roles/systemd/service_manager.ts";

/**
 * Runs one instance until its manager stops it.
 * @param worker one for its engine that has started already
 * @returns the exit code
 * @throws {UsageError} the manager's address, the host or the instance's id cannot be one
 * @throws {UnavailableError} this host does not have the address of `--host`
 */
export async function runInstance(
  options: InstanceOptions,
  worker?: EngineWorker,
): Promise<number> {
  const { host, hostName, hostShare, startedBy } = options;
  const instanceId = options.instanceId ?? `instance-${startedBy}-${Deno.pid}`;
  checkInstanceId(instanceId);
  const manager = managerAddress(options.managerAddress);
  if (host !== null) {
    checkHostOf(manager, host);
    checkOwnAddress(host);
  }
  if (hostName !== null) checkHostName(hostName);
  startLogging(options, instanceId, startedBy !== "hand");
  const log = logger("instance");
  exitOnDefects(log);
  keepProgram();
  const key = clusterKey(options);
  using systemd = new ServiceManager();
  return await serveInstance({
    options,
    bus: openBus({ clusterKey: key }),
    clusterKey: key,
    migration: options,
    instanceId,
    managerAddress: manager,
    cluster: options,
    host: host ?? undefined,
    hostName: hostName ?? undefined,
    hostShare,
    startedBy,
    loadExecutor: (spec, onProgress) => loadThreadedExecutor(spec, { onProgress, worker }),
    metrics: await metricsOf(options),
    systemd,
    managerWaitMs: startedBy === "hand" ? MANAGER_WAIT_MS : 0,
    rejoinTimeoutMs: options.orphanTimeout * 1000,
    drainTimeoutMs: options.drainTimeout * 1000,
    log,
  });
}

/** Most instances serve no metrics, and need not load what names the model. */
async function metricsOf(options: InstanceOptions): Promise<MetricsPlace | undefined> {
  if (options.metricsPort === null) return undefined;
  const { metricsPlace } = await import("../../roles/metrics_place.ts");
  return await metricsPlace(options);
}
