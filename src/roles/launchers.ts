/** Chooses the launcher of instances: within the manager's process, or each in a process of its own. */
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
import type { ClusterOptions } from "./cluster.ts";
import type { ClusterKeyOptions } from "./cluster_key.ts";
import { InProcessLauncher } from "./in_process_launcher.ts";
import type { PreparedInstance } from "./prepared_instance.ts";
import { ProcessLauncher } from "./process_launcher.ts";
import { runsInProcess } from "./runs_in_process.ts";

export interface LauncherConfig {
  readonly options:
    & EngineOptions
    & TransferOptions
    & MigrationBackendOptions
    & ScalingOptions
    & LifecycleOptions
    & ClusterKeyOptions
    & ClusterOptions
    & Pick<LoggingOptions, "logLevel" | "logFormat">
    & Pick<ManagerOptions, "initialInstances">;
  /** The engine's options as words of a command line, for instances in processes of their own. */
  readonly engineArgv: readonly string[];
  readonly bus: Bus;
  readonly log: Log;
  /** The file to which this process and its instances log, in addition to stderr. */
  readonly logFile: string | null;
  /** How long instances serve on without this manager. Absent: roles share this process or end with it. */
  readonly orphanTimeoutMs?: number;
  /** Becomes the first instance, if instances are processes. */
  readonly prepared?: PreparedInstance;
  /** Instances that share this host. Default: as many as the service has. */
  readonly hostShare?: number;
  /** Words of the command line of instances besides those that the options give. */
  readonly moreArgv?: readonly string[];
}

/** The launcher that the options call for. */
export function launcherOf(config: LauncherConfig): InstanceLauncher {
  const { options, bus, log, logFile, orphanTimeoutMs = 0 } = config;
  if (isOneProcess(config)) {
    const migration = options.enableMigration ? options : undefined;
    return new InProcessLauncher({ options, migration, bus, clock: realClock });
  }
  const { enableScaling, initialInstances, maxInstances } = options;
  if (enableScaling && config.hostShare === undefined) {
    log.info(`memory and cores are shared by up to ${maxInstances} instances (--max-instances)`);
  }
  const argv = [
    ...config.engineArgv,
    `--orphan-timeout=${orphanTimeoutMs / 1000}`,
    `--drain-timeout=${options.drainTimeout}`,
    `--log-level=${options.logLevel}`,
    `--log-format=${options.logFormat}`,
    ...clusterArgv(options),
    ...config.moreArgv ?? [],
  ];
  if (logFile !== null) argv.push(`--log-filename=${logFile}`);
  const hostShare = config.hostShare ?? (enableScaling ? maxInstances : initialInstances);
  return new ProcessLauncher({ hostShare, engineArgv: argv, prepared: config.prepared });
}

/** How an instance finds its manager, and proves that it belongs here. Files carry the secrets. */
function clusterArgv(options: ClusterKeyOptions & ClusterOptions): string[] {
  const argv: string[] = [];
  if (options.cluster) {
    argv.push(`--cluster=${options.cluster}`);
    if (options.clusterCredentials) {
      argv.push(`--cluster-credentials=${options.clusterCredentials}`);
    }
    if (options.clusterLease !== undefined) argv.push(`--cluster-lease=${options.clusterLease}`);
  }
  if (options.clusterKeyFile) argv.push(`--cluster-key-file=${options.clusterKeyFile}`);
  if (options.clusterInsecure) argv.push("--cluster-insecure");
  return argv;
}

/** Whether all roles are one process. If roles run apart, instances outlive the manager. */
export function isOneProcess(
  { options, orphanTimeoutMs }: Pick<LauncherConfig, "options" | "orphanTimeoutMs">,
): boolean {
  return orphanTimeoutMs === undefined && runsInProcess(options);
}
