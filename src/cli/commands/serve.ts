/** `llumnix serve`: API server, manager and instances of one host. */
import type { Address } from "../../bus/bus.ts";
import { parseAddress } from "../../bus/address.ts";
import { openBus } from "../../bus/open_bus.ts";
import { realClock } from "../../core/clock.ts";
import type { Log } from "../../core/log.ts";
import type { InstanceRegistration } from "../../core/protocol/membership.ts";
import type { Handover, RoleStatus } from "../../core/protocol/upgrade.ts";
import { ClusterClient } from "../../client/cluster_client.ts";
import {
  makeRuntimeDirectory,
  type RuntimeDirectory,
  takenOverDirectory,
} from "../../roles/runtime_directory.ts";
import type { RunningServer } from "../../server/server.ts";
import { toArgv } from "../to_argv.ts";
import type { ServeOptions } from "../arguments/tables.ts";
import { unusedDeviceNotice } from "../doctor/nvidia_files.ts";
import { adminToken } from "../../roles/admin_token.ts";
import { prepareApiServer, socketsOf } from "../../roles/api_server.ts";
import { ManagerRole } from "../../roles/manager.ts";
import { type ManagerPlace, takeManagerPlace } from "../../roles/manager_address.ts";
import type { PreparedInstance } from "../../roles/prepared_instance.ts";
import type { RoleService } from "../../roles/run_role.ts";
import { startRole } from "../../roles/start_role.ts";
import { runsInProcess } from "../../roles/runs_in_process.ts";
import { startInstances } from "../../roles/started_instances.ts";
import { executorKind } from "../../executor/devices.ts";
import type { FoundModel } from "../../executor/executor_kind.ts";
import { findModel } from "../../roles/served_model.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { passedSockets } from "../../roles/systemd/passed_sockets.ts";
import type { Predecessor } from "../../roles/upgrade/successor.ts";

/**
 * Serves until it is told to stop.
 * @param prepared becomes the first instance
 * @returns the exit code: 0 after an orderly stop, 1 if no instance serves and none can start
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export function runServe(
  options: ServeOptions,
  prepared?: PreparedInstance,
): Promise<number> {
  return startRole(options, { role: ROLE, log: "serve" }, async (start) => {
    const { log, logFile, predecessor } = start;
    const sockets = predecessor?.sockets ?? passedSockets();
    const model = await findModel(options);
    for (const warning of model.warnings) log.warn(warning);
    const isHidden = options.device === "auto" && executorKind("auto").usesHostCores;
    const notice = isHidden ? unusedDeviceNotice() : null;
    if (notice !== null) log.warn(notice);
    return new Service(options, model, log, logFile, sockets, predecessor, prepared);
  });
}

/** The name on the lines of its log. */
const ROLE = "server";

/** The parts of a service, in the order in which they start. */
class Service implements RoleService {
  readonly role = "serve";
  readonly #options: ServeOptions;
  readonly #model: FoundModel;
  readonly #log: Log;
  readonly #bus = openBus();
  readonly #disposables = new AsyncDisposableStack();
  readonly #failure = Promise.withResolvers<string>();
  /** Where this process and its instances log in addition to stderr. */
  #logFile: string | null;
  /** Sockets to serve at; none: those of `--host` and `--port`. */
  readonly #sockets: readonly number[];
  readonly #predecessor: Predecessor | null;
  readonly #prepared: PreparedInstance | undefined;
  #directory: RuntimeDirectory | null = null;
  /** The address of the manager, if another one of this service has had it before. */
  #place: ManagerPlace | undefined = undefined;
  #role: ManagerRole | null = null;
  #client: ClusterClient | null = null;
  #server: RunningServer | null = null;
  #hasFailed = false;

  constructor(
    options: ServeOptions,
    model: FoundModel,
    log: Log,
    logFile: string | null,
    sockets: readonly number[],
    predecessor: Predecessor | null,
    prepared: PreparedInstance | undefined,
  ) {
    this.#options = options;
    this.#model = model;
    this.#log = log;
    this.#logFile = logFile;
    this.#sockets = sockets;
    this.#predecessor = predecessor;
    this.#prepared = prepared;
  }

  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  async start(): Promise<string> {
    const { disableInitInstanceByManager, initialInstances } = this.#options;
    const api = await prepareApiServer(this.#options, this.#model);
    const handover = await this.#takeOver();
    await this.#takePlace(handover);
    const { role, client } = await this.#startManager();
    // First, so that a port in use or a bad certificate is told before anything is loaded. Clients of a
    // predecessor are served there until instances serve here.
    if (handover === null) await this.#startServer(api, client);
    await role.startInstances(this.#place, handover?.numInstances ?? undefined);
    if (disableInitInstanceByManager && this.#place === undefined) {
      await startInstances({
        launcher: role.launcher!,
        managerAddress: this.#address,
        cluster: client,
        clock: realClock,
        count: initialInstances,
      });
    }
    this.#prepared?.close();
    if (handover !== null) await this.#startServer(api, client);
    const status = this.#describe(role.manager.instances());
    if (role.manager.instances().length > 0) this.#log.info(status); // else they are lost again already
    return status;
  }

  async finishRequests(limitMs: number): Promise<void> {
    this.#role?.manager.windDown();
    if (this.#hasFailed) await this.#client?.close(); // nothing will finish
    await this.#server?.shutdown(limitMs);
  }

  kill(): void {
    this.#role?.manager.kill();
  }

  sockets(): readonly number[] {
    return this.#server === null ? [] : socketsOf(this.#server);
  }

  /** Instances within this process serve its requests to their end; the successor has its own. */
  async handOver(): Promise<Handover> {
    startLogging(this.#options, ROLE, true); // the successor claims the log file
    if (this.#directory === null) return { managerAddress: null, numInstances: null };
    const managerAddress = this.#address;
    const { manager } = this.#role!;
    this.#client!.moveManager(managerAddress);
    const numInstances = manager.numWanted;
    await this.#role!.handOver();
    this.#place?.leave();
    return { managerAddress, numInstances };
  }

  async takeBack(): Promise<void> {
    this.#logFile = startLogging(this.#options, ROLE);
    if (this.#directory === null) return;
    const numWanted = this.#role!.manager.numWanted;
    this.#place = await takeManagerPlace(this.#address);
    this.#client!.moveManager(this.#localAddress);
    const role = await this.#listen();
    await role.startInstances(this.#place, numWanted);
  }

  upgradeStatus(): RoleStatus {
    return this.#role?.upgradeStatus() ?? { instances: [], rollout: null };
  }

  async giveWay(): Promise<void> {
    await this.#server!.giveWay();
  }

  noteTakenOver(): void {
    this.#role?.replaceTakenOver();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync();
  }

  get #localAddress(): Address {
    return `inproc:manager-${Deno.pid}`;
  }

  /** Where instances find the manager. */
  get #address(): Address {
    return this.#directory === null
      ? this.#localAddress
      : `unix:${this.#directory.path}/manager.sock`;
  }

  async #takeOver(): Promise<Handover | null> {
    if (this.#predecessor === null) return null;
    const handover = await this.#predecessor.takeOver();
    this.#logFile = startLogging(this.#options, ROLE);
    return handover;
  }

  /** Makes the directory of the sockets, or takes over that of the predecessor. */
  async #takePlace(handover: Handover | null): Promise<void> {
    if (runsInProcess(this.#options)) return;
    const address = handover?.managerAddress ?? null;
    const parsed = address === null ? null : parseAddress(address);
    const directory = parsed?.scheme === "unix"
      ? takenOverDirectory(parsed.path)
      : makeRuntimeDirectory();
    this.#directory = directory;
    this.#disposables.defer(() => {
      if (this.#role?.isHandedOver !== true) directory.remove();
    });
    if (address !== null) this.#place = await takeManagerPlace(address);
  }

  async #startManager() {
    const role = await this.#listen();
    const client = this.#client = await ClusterClient.connect({
      bus: this.#bus,
      managerAddress: this.#localAddress,
      frontendId: `api-${Deno.pid}`,
      clock: realClock,
      adminToken: adminToken(this.#options),
    });
    this.#disposables.defer(() => client.close());
    return { role, client };
  }

  async #listen(): Promise<ManagerRole> {
    const local = this.#localAddress, address = this.#address;
    const role = this.#role = await ManagerRole.listen({
      options: this.#options,
      engineArgv: toArgv(this.#options),
      bus: this.#bus,
      addresses: address === local ? [local] : [address, local],
      log: this.#log,
      logFile: this.#logFile,
      isSuccessor: this.#place !== undefined,
      prepared: this.#prepared,
      onEvent: (event) => {
        if (event.type === "given_up") this.#fail("no instance serves, and none can start");
      },
    });
    this.#disposables.use(role);
    return role;
  }

  async #startServer(
    api: Awaited<ReturnType<typeof prepareApiServer>>,
    client: ClusterClient,
  ): Promise<void> {
    const server = this.#server = await api.start(client, this.#sockets);
    this.#disposables.defer(() => server.closeNow());
  }

  #fail(reason: string): void {
    this.#hasFailed = true;
    this.#failure.resolve(reason);
  }

  #describe(instances: readonly InstanceRegistration[]): string {
    const where = `${this.#model.name} at ${this.#server!.url}`;
    if (instances.length === 0) return `serving ${where}`;
    const [{ executor, dtype, totalBlocks, blockSize }] = instances;
    const each = instances.length === 1 ? "" : " each";
    return `serving ${this.#model.name} (${dtype}) at ${this.#server!.url} with ` +
      `${instances.length} ${instances.length === 1 ? "instance" : "instances"} on ${executor}, ` +
      `KV cache of ${totalBlocks * blockSize} tokens${each}`;
  }
}
