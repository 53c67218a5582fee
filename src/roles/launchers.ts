/** What starts instances: within the manager's process, or each in a process of its own. */
import type { Bus } from "../bus/bus.ts";
import { realClock } from "../core/clock.ts";
import type { Log } from "../core/log.ts";
import type {
  EngineOptions,
  LifecycleOptions,
  LoggingOptions,
  ManagerOptions,
  MigrationBackendOptions,
  ScalingOptions,
  TransferOptions,
} from "../core/options.ts";
import type { InstanceLauncher } from "../manager/fleet/launcher.ts";
import type { ClusterKeyOptions } from "./cluster_key.ts";
import { InProcessLauncher } from "./in_process_launcher.ts";
import { ProcessLauncher } from "./process_launcher.ts";

/** Whether instances run within the manager's process. */
export function runsInProcess(
  options: Pick<EngineOptions & LifecycleOptions, "device" | "instanceIsolation">,
): boolean {
  const { device, instanceIsolation } = options;
  return instanceIsolation === "none" || (instanceIsolation === "auto" && device === "sim");
}

export interface LauncherConfig {
  readonly options:
    & EngineOptions
    & TransferOptions
    & MigrationBackendOptions
    & ScalingOptions
    & LifecycleOptions
    & ClusterKeyOptions
    & Pick<LoggingOptions, "logLevel">
    & Pick<ManagerOptions, "initialInstances">;
  /** The engine's options as words of a command line, for instances that are processes. */
  readonly engineArgv: readonly string[];
  readonly bus: Bus;
  readonly log: Log;
  /** The file to which this process and its instances log, beside stderr. */
  readonly logFile: string | null;
  /** How long instances go on without this manager; default: not at all. */
  readonly orphanTimeoutMs?: number;
}

/** What starts instances: within this process, or each as one of its own. */
export function launcherOf(config: LauncherConfig): InstanceLauncher {
  const { options, bus, log, logFile, orphanTimeoutMs = 0 } = config;
  if (isOneProcess(config)) {
    const migration = options.enableMigration ? options : undefined;
    return new InProcessLauncher({ options, migration, bus, clock: realClock });
  }
  const { enableScaling, initialInstances, maxInstances } = options;
  if (enableScaling) {
    log.info(`memory and cores are shared by up to ${maxInstances} instances (--max-instances)`);
  }
  const argv = [
    ...config.engineArgv,
    `--orphan-timeout=${orphanTimeoutMs / 1000}`,
    `--drain-timeout=${options.drainTimeout}`,
    `--log-level=${options.logLevel}`,
  ];
  if (options.clusterKeyFile) argv.push(`--cluster-key-file=${options.clusterKeyFile}`);
  if (options.clusterInsecure) argv.push("--cluster-insecure");
  if (logFile !== null) argv.push(`--log-filename=${logFile}`);
  const hostShare = enableScaling ? maxInstances : initialInstances;
  return new ProcessLauncher({ hostShare, engineArgv: argv });
}

/** Roles that run apart have instances that outlive them. */
export function isOneProcess(
  { options, orphanTimeoutMs }: Pick<LauncherConfig, "options" | "orphanTimeoutMs">,
): boolean {
  return orphanTimeoutMs === undefined && runsInProcess(options);
}
