/** The role of the manager: starts instances and shows what happens to them. */
import type { Address } from "../bus/bus.ts";
import { realClock } from "../core/clock.ts";
import { logger } from "../core/log.ts";
import { takesEscapes } from "../core/terminal.ts";
import type {
  EngineOptions,
  LifecycleOptions,
  LoggingOptions,
  ManagerOptions,
  MigrationBackendOptions,
  MigrationOptions,
  ScalingOptions,
  TransferOptions,
} from "../core/options.ts";
import type { RoleStatus } from "../core/protocol/upgrade.ts";
import { fullVersion } from "../core/version.ts";
import { backendKind } from "../kv/transfer/backends.ts";
import type { MigrationCompatibility } from "../manager/migration/compatibility.ts";
import type { InstanceLauncher } from "../manager/fleet/launcher.ts";
import type { InstanceRollout } from "../manager/fleet/rollout.ts";
import { Manager, type ManagerCluster } from "../manager/manager.ts";
import type { ManagerEvent } from "../manager/manager_event.ts";
import type { GroupOptions } from "../manager/migration/migration_group.ts";
import { adminToken } from "./admin_token.ts";
import type { ClusterKeyOptions } from "./cluster_key.ts";
import { isOneProcess, type LauncherConfig, launcherOf } from "./launchers.ts";
import { clusterFamilies } from "../metrics/cluster_families.ts";
import { processFamilies } from "../metrics/process_families.ts";
import { InstanceInfoLog } from "./instance_info_log.ts";
import type { ManagerPlace } from "./manager_address.ts";
import type { MetricsPlace } from "./metrics_place.ts";
import type { MetricsServer } from "./metrics_server.ts";
import { ManagerDisplay } from "./manager_display.ts";
import { servedSettings } from "./served_model.ts";
import { StatisticsLog } from "./statistics_log.ts";
import { showRollout } from "./upgrade/show_rollout.ts";

/** How long instances look for the successor of a manager, which is ready when the manager goes. */
const SUCCESSOR_WAIT_MS = 30_000;

/** Options of a manager with its instances. */
export type ManagerRoleOptions =
  & EngineOptions
  & ManagerOptions
  & MigrationOptions
  & TransferOptions
  & MigrationBackendOptions
  & ScalingOptions
  & LifecycleOptions
  & LoggingOptions
  & ClusterKeyOptions
  & { readonly adminToken: string | null };

export interface ManagerRoleConfig extends LauncherConfig {
  readonly options: ManagerRoleOptions;
  /** Addresses to listen at; instances use the first. */
  readonly addresses: readonly [Address, ...Address[]];
  readonly onEvent?: (event: ManagerEvent) => void;
  /** It takes the place of another manager: the file of `--log-instance-info` goes on. */
  readonly isSuccessor?: boolean;
  /** Where the manager serves `/metrics`; absent: nowhere. */
  readonly metrics?: MetricsPlace;
  /** Absent: this manager is the only one. */
  readonly cluster?: ManagerCluster;
  /** Agents of hosts start the instances. Default: this process does, on its own host. */
  readonly hasAgents?: boolean;
}

/** A manager with its display and logs. Disposing of it stops the manager and its instances. */
export class ManagerRole implements AsyncDisposable {
  readonly manager: Manager;
  readonly #config: ManagerRoleConfig;
  readonly #display: ManagerDisplay;
  #statistics: StatisticsLog | null = null;
  #instanceInfo: InstanceInfoLog | null = null;
  #metrics: MetricsServer | null = null;
  #rollout: InstanceRollout | null = null;
  #isHandedOver = false;

  private constructor(
    config: ManagerRoleConfig,
    display: ManagerDisplay,
    manager: Manager,
    /** Null: agents of hosts start instances. */
    readonly launcher: InstanceLauncher | null,
  ) {
    this.#config = config;
    this.#display = display;
    this.manager = manager;
  }

  /**
   * Listens. Call {@linkcode startInstances} next.
   * @throws {UnavailableError} an address cannot be bound
   * @throws {UsageError} the file of `--log-instance-info` cannot be written
   */
  static async listen(config: ManagerRoleConfig): Promise<ManagerRole> {
    const { options, bus, addresses, log, onEvent } = config;
    const isTerminal = options.logFormat === "text" && takesEscapes();
    const display = new ManagerDisplay(log, options.disableLogRequestsManager, isTerminal);
    const launcher = config.hasAgents ? null : launcherOf(config);
    const manager = await Manager.listen({
      bus,
      addresses,
      options,
      migration: options,
      settings: await servedSettings(options) ?? undefined,
      migrationCompatibility: migrationCompatibilityOf(config),
      migrationGroup: groupOf(config),
      scaling: options,
      instanceTimeoutMs: options.instanceTimeout * 1000,
      drainTimeoutMs: options.drainTimeout * 1000,
      seed: options.seed,
      adminToken: adminToken(options),
      launcher,
      clock: realClock,
      cluster: config.cluster,
      onEvent: (event) => {
        display.show(event);
        onEvent?.(event);
      },
    });
    const role = new ManagerRole(config, display, manager, launcher);
    try {
      if (config.metrics) await role.#serveMetrics(config.metrics);
      if (options.logInstanceInfo) role.#logInstanceInfo();
      return role;
    } catch (error) {
      await role.#metrics?.close();
      await manager.stop();
      throw error;
    }
  }

  /**
   * Starts the instances and waits until all of them serve.
   * @param place where a previous manager may have left instances that still run
   * @param numWanted how many there should be after a previous manager; default: as the options say
   * @throws {LlumnixError} an instance ended before; its own error if it sent one
   */
  async startInstances(place?: ManagerPlace, numWanted?: number): Promise<void> {
    if (place?.wasAbandoned) await this.manager.recoverInstances(place.survivors, numWanted);
    else await this.manager.startInstances();
    this.#display.finish();
    if (!this.#config.options.disableLogStats) this.#logStatistics();
  }

  /** A successor has the instances. */
  get isHandedOver(): boolean {
    return this.#isHandedOver;
  }

  /**
   * Lets the instances go on for another manager. Disposing then stops nothing.
   * @param resign see {@linkcode Manager.handOver}
   */
  async handOver(resign?: () => Promise<void>): Promise<void> {
    this.#isHandedOver = true;
    this.#closeLogs();
    await this.#metrics?.close();
    await this.manager.handOver(SUCCESSOR_WAIT_MS, resign);
  }

  /** Replaces the instances of the predecessor, one after the other, by ones of this executable. */
  replaceTakenOver(): void {
    const { log } = this.#config;
    this.#rollout = this.manager.replaceTakenOver((instanceId, number) => {
      const { total } = this.#rollout!.status;
      log.info(`replacing ${instanceId} (${number} of ${total}) by one of ${fullVersion()}`);
    });
    this.#rollout.done.then((outcome) => showRollout(outcome, log));
  }

  /** Of the instances that this manager starts; agents tell of theirs. */
  upgradeStatus(): RoleStatus {
    const started = this.#config.hasAgents ? [] : this.manager.instances();
    const instances = started.map(({ instanceId, version = null }) => ({ instanceId, version }));
    return { instances, rollout: this.#rollout?.status ?? null };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closeLogs();
    await this.#metrics?.close();
    await this.manager.stop();
    this.#display.finish();
  }

  #closeLogs(): void {
    this.#statistics?.close();
    this.#instanceInfo?.close();
  }

  async #serveMetrics(place: MetricsPlace): Promise<void> {
    const { MetricsServer } = await import("./metrics_server.ts");
    this.#metrics = await MetricsServer.listen(place, () => [
      ...clusterFamilies(this.manager.clusterState(), place.model),
      ...processFamilies("manager", fullVersion()),
    ]);
  }

  #logInstanceInfo(): void {
    const { options, logFile, isSuccessor } = this.#config;
    this.#instanceInfo = new InstanceInfoLog({
      clock: realClock,
      continues: isSuccessor,
      logFilename: logFile ?? options.logFilename,
      options,
      infos: () => this.manager.infos(),
    });
  }

  #logStatistics(): void {
    this.#statistics = new StatisticsLog({
      clock: realClock,
      log: logger("statistics"),
      infos: () => this.manager.infos(),
      statistics: () => this.manager.statistics(),
    });
  }
}

/** What instances must have in common to exchange requests; undefined if all share this process. */
function migrationCompatibilityOf(config: ManagerRoleConfig): MigrationCompatibility | undefined {
  const { enableMigration, migrationBackend: backend, blockSize } = config.options;
  return enableMigration && !isOneProcess(config) ? { backend, blockSize } : undefined;
}

/** Options of the migration group; instances within one process need none. */
function groupOf(config: ManagerRoleConfig): GroupOptions | undefined {
  const { enableMigration, migrationBackend, migrationBackendInitTimeout } = config.options;
  if (!enableMigration || isOneProcess(config) || !backendKind(migrationBackend).needsGroup) {
    return undefined;
  }
  return { secret: crypto.randomUUID(), initTimeoutMs: migrationBackendInitTimeout * 1000 };
}
