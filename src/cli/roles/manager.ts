/** The role of the manager: it starts instances and tells people what becomes of them. */
import type { Address, Bus } from "../../bus/bus.ts";
import { realClock } from "../../core/clock.ts";
import { type Log, logger } from "../../core/log.ts";
import type { InstanceLauncher } from "../../manager/launcher.ts";
import { Manager, type ManagerEvent } from "../../manager/manager.ts";
import type { GroupOptions } from "../../manager/migration_group.ts";
import { ProcessLauncher } from "../../manager/process_launcher.ts";
import { InProcessLauncher } from "../../sim/in_process_launcher.ts";
import type { ServeOptions } from "../arguments/tables.ts";
import { InstanceInfoLog } from "../instance_info_log.ts";
import { ManagerDisplay } from "../manager_display.ts";
import { StatisticsLog } from "../statistics_log.ts";
import { toArgv } from "../to_argv.ts";

export interface ManagerRoleConfig {
  readonly options: ServeOptions;
  readonly bus: Bus;
  /** Where it listens; instances are told the first. */
  readonly addresses: readonly [Address, ...Address[]];
  readonly log: Log;
  /** Where this process and its instances log besides stderr. */
  readonly logFile: string | null;
  /** How long instances go on without this manager; default: not at all. */
  readonly orphanTimeoutMs?: number;
  readonly onEvent?: (event: ManagerEvent) => void;
}

/** A manager with what shows its work. Disposing of it stops it and its instances. */
export class ManagerRole implements AsyncDisposable {
  readonly manager: Manager;
  readonly #config: ManagerRoleConfig;
  readonly #display: ManagerDisplay;
  #statistics: StatisticsLog | null = null;
  #instanceInfo: InstanceInfoLog | null = null;

  private constructor(config: ManagerRoleConfig, display: ManagerDisplay, manager: Manager) {
    this.#config = config;
    this.#display = display;
    this.manager = manager;
  }

  /**
   * Listens; {@linkcode startInstances} is to follow.
   * @throws {UnavailableError} an address cannot be bound
   * @throws {UsageError} the file of `--log-instance-info` cannot be written
   */
  static async listen(config: ManagerRoleConfig): Promise<ManagerRole> {
    const { options, bus, addresses, log, onEvent } = config;
    const display = new ManagerDisplay(log, options.disableLogRequestsManager);
    const manager = await Manager.listen({
      bus,
      addresses,
      options,
      migration: options,
      migrationGroup: groupOf(options),
      scaling: options,
      instanceTimeoutMs: options.instanceTimeout * 1000,
      drainTimeoutMs: options.drainTimeout * 1000,
      seed: options.seed,
      launcher: launcherOf(config),
      clock: realClock,
      onEvent: (event) => {
        display.show(event);
        onEvent?.(event);
      },
    });
    const role = new ManagerRole(config, display, manager);
    try {
      if (options.logInstanceInfo) role.#logInstanceInfo();
      return role;
    } catch (error) {
      await manager.stop();
      throw error;
    }
  }

  /**
   * Starts the instances and waits until all of them serve.
   * @param isRestart those of a manager before this one may still run
   * @throws {LlumnixError} one ended before; its own error when it sent one
   */
  async startInstances(isRestart = false): Promise<void> {
    await (isRestart ? this.manager.recoverInstances() : this.manager.startInstances());
    this.#display.finish();
    if (!this.#config.options.disableLogStats) this.#logStatistics();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#statistics?.close();
    this.#instanceInfo?.close();
    await this.manager.stop();
    this.#display.finish();
  }

  #logInstanceInfo(): void {
    const { options } = this.#config;
    this.#instanceInfo = new InstanceInfoLog({
      clock: realClock,
      logFilename: options.logFilename,
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

/** Whether instances run within the manager's process. */
export function runsInProcess({ device, instanceIsolation }: ServeOptions): boolean {
  return instanceIsolation === "none" || (instanceIsolation === "auto" && device === "sim");
}

/** Instances within one process need no group: see {@linkcode InProcessLauncher}. */
function groupOf(options: ServeOptions): GroupOptions | undefined {
  if (options.migrationBackend !== "gloo" || runsInProcess(options)) return undefined;
  return {
    secret: crypto.randomUUID(),
    initTimeoutMs: options.migrationBackendInitTimeout * 1000,
  };
}

function launcherOf(config: ManagerRoleConfig): InstanceLauncher {
  const { options, bus, log } = config;
  if (runsInProcess(options) && config.orphanTimeoutMs === undefined) {
    const migration = options.enableMigration ? options : undefined;
    return new InProcessLauncher({ options, migration, bus, clock: realClock });
  }
  const { enableScaling, maxInstances } = options;
  if (enableScaling) {
    log.info(`memory and cores are shared by up to ${maxInstances} instances (--max-instances)`);
  }
  return processLauncher({ ...config, startedBy: "manager" });
}

export interface ProcessLauncherConfig
  extends Pick<ManagerRoleConfig, "options" | "log" | "logFile"> {
  readonly startedBy: "manager" | "api-server";
  /** How long instances go on without a manager; default: not at all. */
  readonly orphanTimeoutMs?: number;
}

/** Starts instances as processes of their own. */
export function processLauncher(config: ProcessLauncherConfig): InstanceLauncher {
  const { options, logFile, startedBy, orphanTimeoutMs = 0 } = config;
  const { enableScaling, initialInstances, maxInstances } = options;
  const argv = [
    ...toArgv(options),
    `--started-by=${startedBy}`,
    `--orphan-timeout=${orphanTimeoutMs / 1000}`,
    `--drain-timeout=${options.drainTimeout}`,
    `--log-level=${options.logLevel}`,
  ];
  if (logFile !== null) argv.push(`--log-filename=${logFile}`);
  const hostShare = enableScaling ? maxInstances : initialInstances;
  return new ProcessLauncher({ hostShare, engineArgv: argv });
}
