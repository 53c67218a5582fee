/** `llumnix serve`: API server, manager and instances of one host. */
import { openBus } from "../../bus/open_bus.ts";
import { realClock } from "../../core/clock.ts";
import { type Log, logger, setupLogging } from "../../core/log.ts";
import type { InstanceRegistration } from "../../core/messages.ts";
import { createTextService } from "../../frontend/text_service.ts";
import { ClusterClient } from "../../manager/cluster_client.ts";
import { Manager } from "../../manager/manager.ts";
import { ProcessLauncher } from "../../manager/process_launcher.ts";
import { makeRuntimeDirectory } from "../../manager/runtime_directory.ts";
import { type RunningServer, startServer } from "../../server/server.ts";
import { InProcessLauncher } from "../../sim/in_process_launcher.ts";
import type { ServeOptions } from "../arguments/tables.ts";
import { describeModel, findModel, type FoundModel, openTokenizer } from "../served_model.ts";
import { ManagerDisplay } from "../manager_display.ts";
import { StatisticsLog } from "../statistics_log.ts";
import { StopSignals } from "../stop_signals.ts";
import { toArgv } from "../to_argv.ts";
import { version } from "../version.ts";

/**
 * Serves until it is told to stop.
 * @returns the exit code: 0 after an orderly stop, 1 when no instance is left
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export async function runServe(options: ServeOptions): Promise<number> {
  const { logLevel: level, logFilename: filename } = options;
  const logFile = setupLogging({ level, filename, role: "server" });
  const log = logger("serve");
  const model = findModel(options);
  for (const warning of model.warnings) log.warn(warning);

  using signals = new StopSignals();
  await using service = new Service(withQuietParts(options), model, log, logFile);
  const started = service.start();
  started.catch(() => {}); // nobody waits for it any more after a signal
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

/** `--disable-log-requests` silences requests everywhere, whatever the flags of the parts say. */
function withQuietParts(options: ServeOptions): ServeOptions {
  if (!options.disableLogRequests) return options;
  return { ...options, disableLogRequestsServer: true, disableLogRequestsManager: true };
}

/** The parts of a service, in the order in which they start. */
class Service implements AsyncDisposable {
  readonly #options: ServeOptions;
  readonly #model: FoundModel;
  readonly #log: Log;
  /** Where this process and its instances log besides stderr. */
  readonly #logFile: string | null;
  readonly #disposables = new AsyncDisposableStack();
  readonly #failure = Promise.withResolvers<string>();
  #manager: Manager | null = null;
  #server: RunningServer | null = null;
  #hasStarted = false;
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
    const { manager, client, display } = await this.#startManager();
    // First, so that a port in use or a bad certificate is told before anything is loaded.
    const server = await this.#startServer(client);
    await manager.startInstances();
    this.#hasStarted = true;
    display.finish();
    if (!this.#options.disableLogStats) this.#logStatistics(manager);
    this.#announce(server, manager.instances());
  }

  /** Lets running requests finish until the deadline, and takes no new ones. */
  async finishRequests(): Promise<void> {
    await this.#server?.shutdown(this.#options.shutdownTimeout * 1000);
  }

  /** Ends all instances at once. */
  kill(): void {
    this.#manager?.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync();
  }

  async #startServer(client: ClusterClient): Promise<RunningServer> {
    const tokenizer = await openTokenizer(this.#options, this.#model);
    const requests = logger("requests");
    const service = createTextService({
      cluster: client,
      tokenizer,
      model: describeModel(this.#options, this.#model, tokenizer),
      eosTokenIds: this.#model.eosTokenIds,
      maxLogprobs: this.#options.maxLogprobs,
      seed: this.#options.seed,
      clock: realClock,
      log: this.#options.disableLogRequests ? undefined : (line) => requests.info(line),
    });
    const log = logger("http");
    const server = await startServer({ service, options: this.#options, version, log });
    this.#server = server;
    this.#disposables.defer(() => server.closeNow());
    return server;
  }

  async #startManager() {
    const directory = makeRuntimeDirectory();
    this.#disposables.defer(() => directory.remove());
    const bus = openBus();
    const display = new ManagerDisplay(this.#log);
    this.#disposables.defer(() => display.finish());
    const local = `inproc:manager-${Deno.pid}`;
    const { device, instanceIsolation } = this.#options;
    const isInProcess = instanceIsolation === "none" ||
      (instanceIsolation === "auto" && device === "sim");
    const manager = await Manager.listen({
      bus,
      addresses: isInProcess ? [local] : [`unix:${directory.path}/manager.sock`, local],
      options: this.#options,
      seed: this.#options.seed,
      launcher: isInProcess
        ? new InProcessLauncher({ options: this.#options, bus, clock: realClock })
        : new ProcessLauncher({
          hostShare: this.#options.initialInstances,
          engineArgv: [...toArgv(this.#options), ...this.#logArgv()],
        }),
      clock: realClock,
      onEvent: (event) => {
        display.show(event);
        // While it starts, the start itself fails, with the reason.
        const isLast = event.type === "lost" && manager.numInstances === 0;
        if (isLast && this.#hasStarted) this.#fail("no instance is left");
      },
    });
    this.#manager = manager;
    this.#disposables.defer(() => manager.stop());
    const client = await ClusterClient.connect({
      bus,
      managerAddress: local,
      frontendId: `api-${Deno.pid}`,
      clock: realClock,
    });
    this.#disposables.defer(() => client.close());
    return { manager, client, display };
  }

  #logStatistics(manager: Manager): void {
    const log = logger("statistics");
    const statistics = new StatisticsLog({ clock: realClock, log, infos: () => manager.infos() });
    this.#disposables.defer(() => statistics.close());
  }

  #logArgv(): string[] {
    const level = `--log-level=${this.#options.logLevel}`;
    return this.#logFile === null ? [level] : [level, `--log-filename=${this.#logFile}`];
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
