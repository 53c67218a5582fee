/** `llumnix api-server`: HTTP for the instances of a manager that runs apart. */
import type { Address, Bus } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { realClock } from "../../core/clock.ts";
import { LeaderFence } from "../../core/leader_fence.ts";
import type { Log } from "../../core/log.ts";
import { MANAGER_WAIT_MS, untilManagerAnswers } from "../../core/manager_wait.ts";
import type { Handover, RoleStatus } from "../../core/protocol/upgrade.ts";
import { ClusterClient } from "../../client/cluster_client.ts";
import { proveOperatorTo } from "../../client/operator_proof_to.ts";
import type { RunningServer } from "../../server/server.ts";
import { toArgv } from "../to_argv.ts";
import type { RoleOptions } from "../arguments/tables.ts";
import { prepareApiServer, type PreparedApiServer, socketsOf } from "../../roles/api_server.ts";
import { launcherOf } from "../../roles/launchers.ts";
import { adminToken } from "../../roles/admin_token.ts";
import { clusterPlace, findLeader, type FoundLeader } from "../../roles/cluster.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import { startInstances } from "../../roles/started_instances.ts";
import type { FoundModel } from "../../executor/executor_kind.ts";
import { findModel, servedSettings } from "../../roles/served_model.ts";
import { startLogging } from "../../roles/start_logging.ts";
import type { RoleService } from "../../roles/run_role.ts";
import { startRole } from "../../roles/start_role.ts";
import { passedSockets } from "../../roles/systemd/passed_sockets.ts";
import type { Predecessor } from "../../roles/upgrade/successor.ts";

/** The name on the lines of its log. */
const ROLE = "api-server";
/** Time for a manager that may lead later to take the proof of the admin token. */
const PROOF_TIMEOUT_MS = 5_000;

/**
 * Serves until it is told to stop.
 * @returns the exit code: 0 after an orderly stop
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export function runApiServer(options: RoleOptions): Promise<number> {
  const address = managerAddress(options.managerAddress);
  return startRole(options, { role: ROLE, log: "serve" }, async (start) => {
    const { log, logFile, predecessor } = start;
    const sockets = predecessor?.sockets ?? passedSockets();
    const model = await findModel(options);
    for (const warning of model.warnings) log.warn(warning);
    return new ApiServerService(options, model, address, log, logFile, sockets, predecessor);
  });
}

/** An API server and what it needs, in the order in which they start. */
export class ApiServerService implements RoleService {
  readonly role = "api-server";
  readonly failed = null;
  readonly #disposables = new AsyncDisposableStack();
  #prepared: PreparedApiServer | null = null;
  #server: RunningServer | null = null;
  #leader: FoundLeader | null = null;

  /**
   * @param logFile where this process and its instances log in addition to stderr
   * @param givenSockets to serve at; none: those of `--host` and `--port`
   */
  constructor(
    private readonly options: RoleOptions,
    private readonly model: FoundModel,
    private readonly address: Address,
    private readonly log: Log,
    private logFile: string | null,
    private readonly givenSockets: readonly number[],
    private readonly predecessor: Predecessor | null,
  ) {}

  /**
   * Reads the tokenizer, so that {@linkcode start} has little left to do.
   * @throws {ModelError} there is no usable one
   */
  async prepare(): Promise<PreparedApiServer> {
    return this.#prepared ??= await prepareApiServer(this.options, this.model);
  }

  /** Resolves when requests are served, and the instances that it starts have served. */
  async start(): Promise<string> {
    const { options, model, log } = this;
    const bus = openBus({ clusterKey: clusterKey(options) });
    const api = await this.prepare();
    const client = await this.#connect(bus, this.address, options, log);
    this.#disposables.defer(() => client.close());
    if (await this.predecessor?.takeOver()) this.logFile = startLogging(options, ROLE);
    const server = this.#server = await api.start(client, this.givenSockets);
    this.#disposables.defer(() => server.closeNow());
    const status = `serving ${model.name} at ${server.url} by the manager at ${
      this.#leader?.address ?? this.address
    }`;
    log.info(status);
    // The manager looks after the instances that a predecessor has started.
    const isFirst = this.predecessor === null;
    if (options.disableInitInstanceByManager && isFirst) await this.#startInstances(bus, client);
    return status;
  }

  /** With `--cluster`, follows the manager that leads. */
  async #connect(bus: Bus, address: Address, options: RoleOptions, log: Log) {
    const place = clusterPlace(options);
    if (place === null) return await connect(bus, () => address, options, log);
    const fence = new LeaderFence("the API server");
    let client: ClusterClient | null = null;
    const leader = await findLeader({
      place,
      fence,
      log,
      onMove: (to) => {
        contacts.meet(to);
        client?.switchManager(to);
      },
    });
    this.#leader = this.#disposables.use(leader);
    const token = adminToken(options);
    const contacts = leader.contacts({
      bus,
      call: (manager, call) => manager.call("ping", { data: null }, call),
      onOpen: (manager) => {
        // If it fails, the first call of an operator says why.
        if (token) proveOperatorTo(manager, token, PROOF_TIMEOUT_MS).catch(() => {});
      },
    });
    this.#disposables.defer(() => contacts.close());
    client = await connect(contacts.bus, () => leader.address, options, log, fence);
    client.switchManager(leader.address); // another one may have become the leader meanwhile
    return client;
  }

  async finishRequests(limitMs: number): Promise<void> {
    await this.#server?.shutdown(limitMs);
  }

  /** Its instances are the manager's. */
  kill(): void {}

  sockets(): readonly number[] {
    return this.#server === null ? [] : socketsOf(this.#server);
  }

  handOver(): Promise<Handover> {
    startLogging(this.options, ROLE, true); // the successor claims the log file
    return Promise.resolve({ managerAddress: null, numInstances: null });
  }

  takeBack(): Promise<void> {
    this.logFile = startLogging(this.options, ROLE);
    return Promise.resolve();
  }

  upgradeStatus(): RoleStatus {
    return { instances: [], rollout: null };
  }

  async giveWay(): Promise<void> {
    await this.#server!.giveWay();
  }

  noteTakenOver(): void {}

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
  addressNow: () => Address,
  options: RoleOptions,
  log: Log,
  fence?: LeaderFence,
): Promise<ClusterClient> {
  const settings = await servedSettings(options) ?? undefined;
  const wait = {
    address: addressNow(),
    clock: realClock,
    timeoutMs: MANAGER_WAIT_MS,
    onWait: () => log.info(`waiting for a manager at ${addressNow()}`),
  };
  return await untilManagerAnswers(wait, () =>
    ClusterClient.connect({
      bus,
      managerAddress: addressNow(),
      frontendId: `api-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`,
      clock: realClock,
      settings,
      fence,
      adminToken: adminToken(options),
      onSettingsMismatch: (reason) =>
        log.error(`the manager at ${addressNow()} is not used: ${reason}`),
      onManagerLost: (reason) => {
        log.warn(`lost the manager (${reason}): requests go to the instances that are known`);
      },
    }));
}
