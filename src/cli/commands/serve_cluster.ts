/** `llumnix serve --cluster`: API server, agent and candidate for the manager; the same on each host. */
import { dirname } from "node:path";
import { parseAddress } from "../../bus/address.ts";
import type { Address } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { UsageError } from "../../core/errors.ts";
import type { Log } from "../../core/log.ts";
import type { Handover, RoleStatus } from "../../core/protocol/upgrade.ts";
import type { FoundModel } from "../../executor/executor_kind.ts";
import { AgentRole } from "../../roles/agent/agent.ts";
import { hostName } from "../../roles/agent/host_facts.ts";
import { ownManagerAddress } from "../../roles/cluster_address.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import type { RoleService } from "../../roles/run_role.ts";
import { startRole } from "../../roles/start_role.ts";
import { findModel } from "../../roles/served_model.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { passedSockets } from "../../roles/systemd/passed_sockets.ts";
import type { Predecessor } from "../../roles/upgrade/successor.ts";
import type { RoleOptions, ServeOptions } from "../arguments/tables.ts";
import { toArgv } from "../to_argv.ts";
import { ApiServerService } from "./api_server.ts";
import { ManagerService } from "./manager.ts";

/** The name on the lines of its log. */
const ROLE = "server";

/**
 * Serves until it is told to stop. The other hosts then serve on.
 * @returns the exit code: 0 after an orderly stop
 * @throws {LlumnixError} what the operator must change, before anything serves
 */
export function runServeCluster(options: ServeOptions): Promise<number> {
  if (options.disableInitInstanceByManager) {
    throw new UsageError(
      "--disable-init-instance-by-manager is for API servers that run apart: with --cluster the manager " +
        "that leads has the instances started, by the `serve` of each host",
    );
  }
  return startRole(options, { role: ROLE, log: "serve" }, async (start) => {
    const { log, logFile, predecessor } = start;
    const sockets = predecessor?.sockets ?? passedSockets();
    const model = await findModel(options);
    for (const warning of model.warnings) log.warn(warning);
    return new Service(options, model, log, logFile, sockets, predecessor);
  });
}

/** The three roles of a host, in the order in which they start. */
class Service implements RoleService {
  readonly role = "serve";
  readonly #failure = Promise.withResolvers<string>();
  /** Null before it starts, and once a successor has the instances. */
  #agent: AgentRole | null = null;
  #manager: ManagerService | null = null;
  #api: ApiServerService | null = null;
  /** The directory that was made for the manager's socket. */
  #directory: string | null = null;

  constructor(
    private readonly options: ServeOptions,
    private readonly model: FoundModel,
    private readonly log: Log,
    private logFile: string | null,
    private readonly givenSockets: readonly number[],
    private readonly predecessor: Predecessor | null,
  ) {}

  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  /** The agent joins last: a port in use, or a wrong certificate, is told before anything is loaded. */
  async start(): Promise<string> {
    const { log, model, givenSockets } = this;
    const options = await this.#roleOptions();
    const address = options.managerAddress!;
    const api = this.#api = new ApiServerService(
      ...[options, model, address, log, this.logFile, givenSockets, null] as const,
    );
    await api.prepare();
    const handover = await this.predecessor?.takeOver();
    if (handover !== undefined) this.logFile = startLogging(this.options, ROLE);
    await this.#openAgent(options);
    const ofManager = { ...options, initialInstances: 0, disableFixedNodeInitInstance: true };
    const isSuccessor = handover !== undefined;
    const manager = this.#manager = new ManagerService(
      ...[ofManager, address, log, this.logFile, null, isSuccessor] as const,
    );
    manager.failed.then((reason) => this.#failure.resolve(reason));
    log.info(await manager.start());
    const status = await api.start();
    await this.#agent!.join();
    return status;
  }

  /** Its clients are served to the end, then its instances give what they have to other hosts. */
  async finishRequests(limitMs: number): Promise<void> {
    await this.#api?.finishRequests(limitMs);
    await this.#agent?.stop();
  }

  kill(): void {
    this.#agent?.kill();
  }

  sockets(): readonly number[] {
    return this.#api?.sockets() ?? [];
  }

  /** Clients of this process are served here to the end; the successor has the instances and the manager. */
  async handOver(): Promise<Handover> {
    startLogging(this.options, ROLE, true); // the successor claims the log file
    const handover = await this.#manager!.leave();
    await this.#leaveInstances();
    return handover;
  }

  async takeBack(): Promise<void> {
    this.logFile = startLogging(this.options, ROLE);
    await this.#manager!.comeBack();
    if (this.#agent !== null) return;
    await this.#openAgent(await this.#roleOptions());
    const agent = this.#agent!;
    // Not awaited: this process has to stop when it is told to, whether a manager leads or not.
    agent.join().catch((error) => {
      if (this.#agent === agent) this.#failure.resolve((error as Error).message); // else it was left
    });
  }

  async upgradeStatus(): Promise<RoleStatus> {
    return await this.#agent?.status() ?? { instances: [], rollout: null };
  }

  async giveWay(): Promise<void> {
    await this.#api!.giveWay();
  }

  noteTakenOver(): void {
    this.#agent!.replaceAdopted();
  }

  /** The manager goes last: until then it may lead, and look after the instances that leave. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#api?.[Symbol.asyncDispose]();
    await this.#leaveInstances();
    await this.#manager?.[Symbol.asyncDispose]();
    if (this.#directory !== null) removeEmptyDirectory(this.#directory);
  }

  async #openAgent(options: RoleOptions): Promise<void> {
    const { log, logFile } = this;
    this.#agent = await AgentRole.open({
      options,
      managerAddress: options.managerAddress!,
      engineArgv: toArgv(options),
      bus: openBus({ clusterKey: clusterKey(options) }),
      log,
      logFile,
      initialInstances: options.initialInstances,
    });
  }

  /** The next agent of this host finds them. */
  async #leaveInstances(): Promise<void> {
    const agent = this.#agent;
    this.#agent = null;
    await agent?.[Symbol.asyncDispose]();
  }

  async #roleOptions(): Promise<RoleOptions> {
    const host = hostName(this.options.hostName);
    return {
      ...this.options,
      hostName: host,
      managerAddress: await this.#address(host),
      metricsPort: null, // the API server has them
      metricsHost: "localhost",
    };
  }

  async #address(host: string): Promise<Address> {
    const { cluster, managerAddress: written } = this.options;
    if (written !== null) return managerAddress(written);
    const address = await ownManagerAddress(cluster!, host, (reason) => this.log.warn(reason));
    const parsed = parseAddress(address);
    if (parsed.scheme === "unix") this.#directory = dirname(parsed.path);
    return address;
  }
}

/** Sockets of instances of other hosts may be in it, where hosts share a machine. */
function removeEmptyDirectory(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // It is not empty, or was never made.
  }
}
