import { basename, dirname } from "node:path";
import { parseAddress } from "../bus/address.ts";
import type { Address, Bus } from "../bus/bus.ts";
import type { ClusterKey } from "../bus/tcp.ts";
import { openBus } from "../bus/open_bus.ts";
import { realClock } from "../core/clock.ts";
import { LlumnixError } from "../core/errors.ts";
import { LeaderFence } from "../core/leader_fence.ts";
import { HostProcess } from "../core/host_process.ts";
import { type Log, type LogFields, reopenLogFile } from "../core/log.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceRegistration } from "../core/protocol/membership.ts";
import type { EngineOptions, MigrationBackendOptions, TransferOptions } from "../core/options.ts";
import { fullVersion } from "../core/version.ts";
import { loadThreadedExecutor } from "../executor/thread/threaded_executor.ts";
import { Instance, type InstanceConfig, type StartEvent } from "../instance/instance.ts";
import { type ClusterOptions, clusterPlace, findLeader } from "./cluster.ts";
import { hangupListener } from "./hangup.ts";
import { processMigration } from "./instance_migration.ts";
import type { MetricsPlace } from "./metrics_place.ts";
import type { MetricsServer } from "./metrics_server.ts";
import { servingFields } from "./serving_fields.ts";
import type { ServiceManager } from "./systemd/service_manager.ts";

/** Most time for a manager to show that it is alive. */
const PING_TIMEOUT_MS = 1_000;
const MAX_REMOVE_ATTEMPTS = 10;
/** The name of a manager's directory; only such a directory is ever removed. */
const runtimeDirectoryName = /^llumnix-\d+-[0-9a-f]{8}$/;

export interface InstanceArgs {
  readonly options: EngineOptions;
  /** Absent: requests stay where they are. */
  readonly migration?: TransferOptions & MigrationBackendOptions;
  readonly instanceId: InstanceId;
  readonly managerAddress: Address;
  /** See {@linkcode InstanceConfig}. */
  readonly host?: string;
  /** See {@linkcode InstanceConfig}. Default without TCP: the name that the system gives this host. */
  readonly hostName?: string;
  /** Instances that share this host. */
  readonly hostShare: number;
  readonly log: Log;
  /** Default: a bus of its own. */
  readonly bus?: Bus;
  /** What processes of other hosts have in common with this one; default null: no connection leaves this host. */
  readonly clusterKey?: ClusterKey | null;
  /** Default: loads in a worker of this program. */
  readonly loadExecutor?: InstanceConfig["loadExecutor"];
  /** Default 0: the instance ends with its manager. See {@linkcode InstanceConfig}. */
  readonly rejoinTimeoutMs?: number;
  /** See {@linkcode InstanceConfig}. */
  readonly drainTimeoutMs?: number;
  readonly startedBy?: InstanceConfig["startedBy"];
  /** See {@linkcode InstanceConfig}. */
  readonly managerWaitMs?: number;
  /** With a store the instance follows the manager that leads. Absent: there is one manager. */
  readonly cluster?: ClusterOptions;
  /** Where the instance serves `/metrics`; absent: nowhere. */
  readonly metrics?: MetricsPlace;
  /** Is told when the instance, started by hand, serves and stops; absent: nobody is. */
  readonly systemd?: ServiceManager;
}

/**
 * Runs one instance as this process. On SIGTERM the instance drains and then ends; a second SIGTERM ends
 * it at once. SIGINT and a terminal that hangs up do the same to an instance that was started by hand.
 * Other instances go on: a terminal sends its signals to the whole process group, and the manager decides.
 * Without a terminal SIGHUP opens the log file anew.
 * @returns the exit code: 0 after a request to stop, 2 for an error that the user can fix, else 1. The
 *   caller should exit the process, because a hanging step may be left behind.
 */
export async function serveInstance(args: InstanceArgs): Promise<number> {
  const { log, bus = openBus(), cluster, instanceId } = args;
  const fence = new LeaderFence(instanceId);
  const onMove = (to: Address) => {
    contacts?.meet(to);
    instance.moveTo(to);
  };
  const place = clusterPlace(cluster);
  await using leader = place && await findLeader({ place, fence, log, onMove });
  const managerAddress = leader?.address ?? args.managerAddress;
  const contacts = leader && leader.contacts({
    bus,
    call: (manager, options) => manager.call("hear", { data: { instanceId } }, options),
  });
  const load = args.loadExecutor ??
    ((spec, onProgress) => loadThreadedExecutor(spec, { onProgress }));
  const instance = new Instance({
    ...args,
    bus: contacts?.bus ?? bus,
    fence,
    managerAddress,
    hostName: args.hostName ??
      (parseAddress(managerAddress).scheme === "tcp" ? undefined : Deno.hostname()),
    pid: Deno.pid,
    processStart: HostProcess.startOf(Deno.pid),
    version: fullVersion(),
    clock: realClock,
    loadExecutor: async (spec, onProgress) => {
      const executor = await load(spec, onProgress);
      for (const warning of executor.info.warnings ?? []) log.warn(warning);
      return executor;
    },
    rejoinTimeoutMs: args.rejoinTimeoutMs ?? 0,
    onStart: args.startedBy === "hand"
      ? (event) => {
        showStart(event, managerAddress, log);
        if (event.type === "serving") args.systemd?.ready(`serving as ${args.instanceId}`);
      }
      : undefined,
    migration: args.migration?.enableMigration
      ? processMigration({
        ...args,
        engine: args.options,
        options: args.migration,
        bus,
        clock: realClock,
      })
      : undefined,
  });
  const onTerminate = () => {
    args.systemd?.stopping();
    instance.drain("got SIGTERM");
  };
  const isByHand = args.startedBy === "hand";
  const listeners = [
    ["SIGTERM", onTerminate],
    ["SIGINT", isByHand ? onTerminate : () => {}],
    ["SIGHUP", isByHand ? hangupListener(onTerminate) : reopenLogFile],
  ] as const;
  const metrics = args.metrics ? await serveMetrics(args, args.metrics, instance) : null;
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  args.systemd?.starting();
  try {
    const end = await instance.run();
    const { reason, error } = end;
    if (error instanceof LlumnixError) log.error(`stopping: ${reason}`);
    else if (error !== undefined) log.error("stopping", { reason, error });
    else if (end.isReported) log.debug("stopping", { reason });
    else log.info("stopping", { reason });
    const wasManagerThere = await instance.close();
    if (!wasManagerThere) await removeAbandonedDirectory(bus, managerAddress);
    return end.exitCode;
  } finally {
    contacts?.close();
    await metrics?.close();
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
  }
}

/** Before the instance serves there are only the metrics of its process. */
async function serveMetrics(
  { instanceId, options: { blockSize } }: InstanceArgs,
  place: MetricsPlace,
  instance: Instance,
): Promise<MetricsServer> {
  const [{ MetricsServer }, { instanceFamilies, ownNumbers }, { processFamilies }] = await Promise
    .all([
      import("./metrics_server.ts"),
      import("../metrics/instance_families.ts"),
      import("../metrics/process_families.ts"),
    ]);
  return await MetricsServer.listen(place, () => {
    const info = instance.engine?.info();
    const known = { executor: null, backend: null, blockSize };
    return [
      ...info ? instanceFamilies([ownNumbers(info, known)], place.model) : [],
      ...processFamilies(instanceId, fullVersion()),
    ];
  });
}

/** Logs the start of an instance that was started by hand; for others the manager logs it. */
function showStart(event: StartEvent, managerAddress: Address, log: Log): void {
  switch (event.type) {
    case "waiting":
      return log.info(`waiting for a manager at ${managerAddress}`);
    case "joined":
      return log.info(`joined the manager at ${managerAddress}`);
    case "serving":
      return log.info("serving", {
        ...servingFields(event.registration),
        ...addressField(event.registration),
      });
  }
}

/** Where others are told to connect, if they may be on other hosts. */
function addressField({ address }: InstanceRegistration): LogFields {
  return parseAddress(address).scheme === "tcp" ? { address } : {};
}

/** Removes the sockets that a killed manager left behind. */
async function removeAbandonedDirectory(bus: Bus, managerAddress: Address): Promise<void> {
  const parsed = parseAddress(managerAddress);
  if (parsed.scheme !== "unix" || !runtimeDirectoryName.test(basename(dirname(parsed.path)))) {
    return;
  }
  if (await isManagerAlive(bus, managerAddress)) return;
  // Other instances remove the same files at the same time: retry if a file has just gone.
  for (let attempt = 0; attempt < MAX_REMOVE_ATTEMPTS; attempt++) {
    try {
      return Deno.removeSync(dirname(parsed.path), { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) return;
    }
  }
}

/** Only an answer counts: a dying process accepts connections for a moment. */
async function isManagerAlive(bus: Bus, managerAddress: Address): Promise<boolean> {
  try {
    const peer = await bus.connect(managerAddress, {}, { timeoutMs: PING_TIMEOUT_MS });
    await peer.call("ping", { data: null }, { timeoutMs: PING_TIMEOUT_MS });
    await peer.close();
    return true;
  } catch {
    return false;
  }
}
