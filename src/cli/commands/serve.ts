/** `llumnix serve`: API server, manager and instances of one host. */
import type { Address } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { realClock } from "../../core/clock.ts";
import { type Log, logger } from "../../core/log.ts";
import type { InstanceRegistration } from "../../core/protocol/membership.ts";
import { ClusterClient } from "../../client/cluster_client.ts";
import { makeRuntimeDirectory } from "../../roles/runtime_directory.ts";
import type { RunningServer } from "../../server/server.ts";
import { toArgv } from "../to_argv.ts";
import type { ServeOptions } from "../arguments/tables.ts";
import { unusedDeviceNotice } from "../doctor/nvidia_files.ts";
import { startApiServer } from "../../roles/api_server.ts";
import { exitOnDefects } from "../../roles/defects.ts";
import { ManagerRole } from "../../roles/manager.ts";
import { runsInProcess } from "../../roles/launchers.ts";
import { startInstances } from "../../roles/started_instances.ts";
import { executorKind } from "../../executor/devices.ts";
import type { FoundModel } from "../../executor/executor_kind.ts";
import { findModel } from "../../roles/served_model.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { StopSignals } from "../../roles/stop_signals.ts";

/**
 * Serves until it is told to stop.
 * @returns the exit code: 0 after an orderly stop, 1 if no instance serves and none can start
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export async function runServe(options: ServeOptions): Promise<number> {
  const logFile = startLogging(options, "server");
  const log = logger("serve");
  const exitOnDefect = exitOnDefects(log);
  const model = await findModel(options);
  for (const warning of model.warnings) log.warn(warning);
  const isHidden = options.device === "auto" && executorKind("auto").usesHostCores;
  const notice = isHidden ? unusedDeviceNotice() : null;
  if (notice !== null) log.warn(notice);

  using signals = new StopSignals();
  await using service = new Service(options, model, log, logFile);
  const started = service.start();
  started.catch(exitOnDefect); // after a signal nothing else awaits it
  await Promise.race([started, signals.first, service.failed]);
  const reason = await Promise.race([signals.first, service.failed]);
  log.info(`stopping: ${reason}`);
  const stopped = service.finishRequests();
  if (await Promise.race([stopped.then(() => true), signals.second.then(() => false)])) {
    return service.hasFailed ? 1 : 0;
  }
  log.warn("second signal: stopping at once");
  service.kill();
  return 130;
}

/** The parts of a service, in the order in which they start. */
class Service implements AsyncDisposable {
  readonly #options: ServeOptions;
  readonly #model: FoundModel;
  readonly #log: Log;
  /** Where this process and its instances log in addition to stderr. */
  readonly #logFile: string | null;
  readonly #disposables = new AsyncDisposableStack();
  readonly #failure = Promise.withResolvers<string>();
  #role: ManagerRole | null = null;
  #client: ClusterClient | null = null;
  #server: RunningServer | null = null;
  hasFailed = false;

  constructor(options: ServeOptions, model: FoundModel, log: Log, logFile: string | null) {
    this.#options = options;
    this.#model = model;
    this.#log = log;
    this.#logFile = logFile;
  }

  /** Resolves with the reason when the service cannot go on. */
  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  /** Resolves when requests are served. */
  async start(): Promise<void> {
    const { disableInitInstanceByManager, initialInstances } = this.#options;
    const { role, client, address } = await this.#startManager();
    // First, so that a port in use or a bad certificate is told before anything is loaded.
    const server = this.#server = await startApiServer(this.#options, this.#model, client);
    this.#disposables.defer(() => server.closeNow());
    await role.startInstances();
    if (disableInitInstanceByManager) {
      await startInstances({
        launcher: role.launcher,
        managerAddress: address,
        cluster: client,
        clock: realClock,
        count: initialInstances,
      });
    }
    this.#announce(server, role.manager.instances());
  }

  /** Lets running requests finish until the deadline, and takes no new ones. */
  async finishRequests(): Promise<void> {
    this.#role?.manager.windDown();
    if (this.hasFailed) await this.#client?.close(); // nothing will finish
    await this.#server?.shutdown(this.#options.shutdownTimeout * 1000);
  }

  /** Ends all instances at once. */
  kill(): void {
    this.#role?.manager.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync();
  }

  async #startManager() {
    const bus = openBus();
    const local = `inproc:manager-${Deno.pid}`;
    const address = runsInProcess(this.#options) ? local : this.#makeSocketAddress();
    const role = this.#role = await ManagerRole.listen({
      options: this.#options,
      engineArgv: toArgv(this.#options),
      bus,
      addresses: address === local ? [local] : [address, local],
      log: this.#log,
      logFile: this.#logFile,
      onEvent: (event) => {
        if (event.type === "given_up") this.#fail("no instance serves, and none can start");
      },
    });
    this.#disposables.use(role);
    const client = this.#client = await ClusterClient.connect({
      bus,
      managerAddress: local,
      frontendId: `api-${Deno.pid}`,
      clock: realClock,
    });
    this.#disposables.defer(() => client.close());
    return { role, client, address };
  }

  #makeSocketAddress(): Address {
    const directory = makeRuntimeDirectory();
    this.#disposables.defer(() => directory.remove());
    return `unix:${directory.path}/manager.sock`;
  }

  #fail(reason: string): void {
    this.hasFailed = true;
    this.#failure.resolve(reason);
  }

  #announce(server: RunningServer, instances: readonly InstanceRegistration[]): void {
    if (instances.length === 0) return; // lost again already
    const [{ executor, dtype, totalBlocks, blockSize }] = instances;
    const each = instances.length === 1 ? "" : " each";
    this.#log.info(
      `serving ${this.#model.name} (${dtype}) at ${server.url} with ${instances.length} ` +
        `${instances.length === 1 ? "instance" : "instances"} on ${executor}, KV cache of ` +
        `${totalBlocks * blockSize} tokens${each}`,
    );
  }
}
