/** `llumnix api-server`: HTTP for the instances of a manager that runs apart. */
import type { Address, Bus } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { realClock } from "../../core/clock.ts";
import { type Log, logger } from "../../core/log.ts";
import { MANAGER_WAIT_MS, untilManagerAnswers } from "../../core/manager_wait.ts";
import { ClusterClient } from "../../client/cluster_client.ts";
import type { RunningServer } from "../../server/server.ts";
import { toArgv } from "../to_argv.ts";
import type { RoleOptions } from "../arguments/tables.ts";
import { startApiServer } from "../../roles/api_server.ts";
import { exitOnDefects } from "../../roles/defects.ts";
import { launcherOf } from "../../roles/launchers.ts";
import { adminToken } from "../../roles/admin_token.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import { startInstances } from "../../roles/started_instances.ts";
import type { FoundModel } from "../../executor/executor_kind.ts";
import { findModel, servedSettings } from "../../roles/served_model.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { StopSignals } from "../../roles/stop_signals.ts";

/**
 * Serves until it is told to stop.
 * @returns the exit code: 0 after an orderly stop
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export async function runApiServer(options: RoleOptions): Promise<number> {
  const address = managerAddress(options.managerAddress);
  const logFile = startLogging(options, "api-server");
  const log = logger("serve");
  const exitOnDefect = exitOnDefects(log);
  const model = await findModel(options);
  for (const warning of model.warnings) log.warn(warning);

  using signals = new StopSignals();
  await using service = new Service(options, model, address, log, logFile);
  const started = service.start();
  started.catch(exitOnDefect); // after a signal nothing else awaits it
  await Promise.race([started, signals.first]);
  log.info(`stopping: ${await signals.first}`);
  const stopped = service.finishRequests();
  if (await Promise.race([stopped.then(() => true), signals.second.then(() => false)])) return 0;
  log.warn("second signal: stopping at once");
  return 130;
}

/** An API server and what it needs, in the order in which they start. */
class Service implements AsyncDisposable {
  readonly #disposables = new AsyncDisposableStack();
  #server: RunningServer | null = null;

  /** @param logFile where this process and its instances log in addition to stderr */
  constructor(
    private readonly options: RoleOptions,
    private readonly model: FoundModel,
    private readonly address: Address,
    private readonly log: Log,
    private readonly logFile: string | null,
  ) {}

  /** Resolves when requests are served, and the instances that it starts have served. */
  async start(): Promise<void> {
    const { options, model, address, log } = this;
    const bus = openBus({ clusterKey: clusterKey(options) });
    const client = await connect(bus, address, options, log);
    this.#disposables.defer(() => client.close());
    const server = this.#server = await startApiServer(options, model, client);
    this.#disposables.defer(() => server.closeNow());
    log.info(`serving ${model.name} at ${server.url} by the manager at ${address}`);
    if (options.disableInitInstanceByManager) await this.#startInstances(bus, client);
  }

  /** Lets running requests finish until the deadline, and takes no new ones. */
  async finishRequests(): Promise<void> {
    await this.#server?.shutdown(this.options.shutdownTimeout * 1000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync();
  }

  async #startInstances(bus: Bus, cluster: ClusterClient): Promise<void> {
    const { options, address, log, logFile } = this;
    const orphanTimeoutMs = options.orphanTimeout * 1000;
    await startInstances({
      launcher: launcherOf({
        options,
        engineArgv: toArgv(options),
        bus,
        log,
        logFile,
        orphanTimeoutMs,
      }),
      managerAddress: address,
      cluster,
      clock: realClock,
      count: options.initialInstances,
    });
  }
}

async function connect(
  bus: Bus,
  address: Address,
  options: RoleOptions,
  log: Log,
): Promise<ClusterClient> {
  const settings = await servedSettings(options) ?? undefined;
  const wait = {
    address,
    clock: realClock,
    timeoutMs: MANAGER_WAIT_MS,
    onWait: () => log.info(`waiting for a manager at ${address}`),
  };
  return await untilManagerAnswers(wait, () =>
    ClusterClient.connect({
      bus,
      managerAddress: address,
      frontendId: `api-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`,
      clock: realClock,
      settings,
      adminToken: adminToken(options),
      onSettingsMismatch: (reason) => log.error(`the manager at ${address} is not used: ${reason}`),
      onManagerLost: (reason) => {
        log.warn(`lost the manager (${reason}): requests go to the instances that are known`);
      },
    }));
}
