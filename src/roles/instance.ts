import { basename, dirname } from "node:path";
import { parseAddress } from "../bus/address.ts";
import type { Address, Bus } from "../bus/bus.ts";
import { openBus } from "../bus/open_bus.ts";
import { realClock } from "../core/clock.ts";
import { LlumnixError } from "../core/errors.ts";
import { HostProcess } from "../core/host_process.ts";
import type { Log } from "../core/log.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { EngineOptions, MigrationBackendOptions, TransferOptions } from "../core/options.ts";
import { loadThreadedExecutor } from "../executor/thread/threaded_executor.ts";
import { Instance, type InstanceConfig, type StartEvent } from "../instance/instance.ts";
import { processMigration } from "./instance_migration.ts";
import { servingFields } from "./serving_fields.ts";

/** How long a manager that hangs may take to show that it is alive. */
const PING_TIMEOUT_MS = 1_000;
const MAX_REMOVE_ATTEMPTS = 10;
/** What the manager calls its directory; nothing else is ever removed. */
const runtimeDirectoryName = /^llumnix-\d+-[0-9a-f]{8}$/;

/** What a terminal sends to all processes of a job. */
const groupSignals = ["SIGINT", "SIGHUP"] as const;

export interface InstanceArgs {
  readonly options: EngineOptions;
  /** Absent: requests stay where they are. */
  readonly migration?: TransferOptions & MigrationBackendOptions;
  readonly instanceId: InstanceId;
  readonly managerAddress: Address;
  /** Instances that share this host. */
  readonly hostShare: number;
  readonly log: Log;
  /** Default: a bus of its own. */
  readonly bus?: Bus;
  /** Default: loads in a worker of this program. */
  readonly loadExecutor?: InstanceConfig["loadExecutor"];
  /** Default 0: it ends with its manager. See {@linkcode InstanceConfig}. */
  readonly rejoinTimeoutMs?: number;
  /** See {@linkcode InstanceConfig}. */
  readonly drainTimeoutMs?: number;
  readonly startedBy?: InstanceConfig["startedBy"];
  /** See {@linkcode InstanceConfig}. */
  readonly managerWaitMs?: number;
}

/**
 * Runs one instance as this process. SIGTERM has it give its requests away and then ends it, a second
 * one ends it at once. SIGINT and SIGHUP do the same to what was started by hand; else they are
 * ignored: a terminal sends them to the whole process group, and it is the manager that decides.
 * @returns the exit code: 0 when asked to stop, 2 for what the user can put right, else 1. The
 *   process should exit then, for a step that hangs is left behind.
 */
export async function serveInstance(args: InstanceArgs): Promise<number> {
  const { log, bus = openBus(), managerAddress } = args;
  const instance = new Instance({
    ...args,
    bus,
    pid: Deno.pid,
    processStart: HostProcess.startOf(Deno.pid),
    clock: realClock,
    loadExecutor: args.loadExecutor ??
      ((spec, onProgress) => loadThreadedExecutor(spec, { onProgress })),
    rejoinTimeoutMs: args.rejoinTimeoutMs ?? 0,
    onStart: args.startedBy === "hand"
      ? (event) => showStart(event, managerAddress, log)
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
  const onTerminate = () => instance.drain("got SIGTERM");
  const onGroupSignal = args.startedBy === "hand" ? onTerminate : () => {};
  Deno.addSignalListener("SIGTERM", onTerminate);
  for (const signal of groupSignals) Deno.addSignalListener(signal, onGroupSignal);
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
    Deno.removeSignalListener("SIGTERM", onTerminate);
    for (const signal of groupSignals) Deno.removeSignalListener(signal, onGroupSignal);
  }
}

/** Of others the manager's log says it, which whoever starts one by hand may not see. */
function showStart(event: StartEvent, managerAddress: Address, log: Log): void {
  switch (event.type) {
    case "waiting":
      return log.info(`waiting for a manager at ${managerAddress}`);
    case "joined":
      return log.info(`joined the manager at ${managerAddress}`);
    case "serving":
      return log.info("serving", servingFields(event.registration));
  }
}

/** A manager that was killed leaves its sockets behind; whoever notices removes them. */
async function removeAbandonedDirectory(bus: Bus, managerAddress: Address): Promise<void> {
  const parsed = parseAddress(managerAddress);
  if (parsed.scheme !== "unix" || !runtimeDirectoryName.test(basename(dirname(parsed.path)))) {
    return;
  }
  if (await isManagerAlive(bus, managerAddress)) return;
  // The other instances do the same: one that finds files gone under its hands tries again.
  for (let attempt = 0; attempt < MAX_REMOVE_ATTEMPTS; attempt++) {
    try {
      return Deno.removeSync(dirname(parsed.path), { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) return;
    }
  }
}

/** A dying process still takes connections for a moment, so only an answer counts. */
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
