/** `llumnix serve --cluster`: API server, agent and candidate for the manager; the same on each host. */
import { dirname } from "node:path";
import { parseAddress } from "../../bus/address.ts";
import type { Address } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { UnavailableError, UsageError } from "../../core/errors.ts";
import { type Log, logger } from "../../core/log.ts";
import type { Handover, UpgradeStatus } from "../../core/protocol/upgrade.ts";
import type { FoundModel } from "../../executor/executor_kind.ts";
import { AgentRole } from "../../roles/agent/agent.ts";
import { hostName } from "../../roles/agent/host_facts.ts";
import { ownManagerAddress } from "../../roles/cluster_address.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { exitOnDefects } from "../../roles/defects.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import { type RoleService, runRole } from "../../roles/run_role.ts";
import { findModel } from "../../roles/served_model.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { passedSockets } from "../../roles/systemd/passed_sockets.ts";
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
export async function runServeCluster(options: ServeOptions): Promise<number> {
  if (options.disableInitInstanceByManager) {
    throw new UsageError(
      "--disable-init-instance-by-manager is for API servers that run apart: with --cluster the manager " +
        "that leads has the instances started, by the `serve` of each host",
    );
  }
  const logFile = startLogging(options, ROLE);
  const log = logger("serve");
  const exitOnDefect = exitOnDefects(log);
  const model = await findModel(options);
  for (const warning of model.warnings) log.warn(warning);
  return await runRole({
    service: new Service(options, model, log, logFile, passedSockets()),
    predecessor: null,
    shutdownTimeoutMs: options.shutdownTimeout * 1000,
    log,
    exitOnDefect,
  });
}

/** The three roles of a host, in the order in which they start. */
class Service implements RoleService {
  readonly role = "serve";
  readonly #failure = Promise.withResolvers<string>();
  #agent: AgentRole | null = null;
  #manager: ManagerService | null = null;
  #api: ApiServerService | null = null;
  /** The directory that was made for the manager's socket. */
  #directory: string | null = null;

  constructor(
    private readonly options: ServeOptions,
    private readonly model: FoundModel,
    private readonly log: Log,
    private readonly logFile: string | null,
    private readonly givenSockets: readonly number[],
  ) {}

  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  /** The agent joins last: a port in use, or a wrong certificate, is told before anything is loaded. */
  async start(): Promise<string> {
    const { log, logFile, model } = this;
    const host = hostName(this.options.hostName);
    const address = await this.#address(host);
    const options: RoleOptions = {
      ...this.options,
      hostName: host,
      managerAddress: address,
      metricsPort: null, // the API server has them
      metricsHost: "localhost",
    };
    const agent = this.#agent = await AgentRole.open({
      options,
      managerAddress: address,
      engineArgv: toArgv(options),
      bus: openBus({ clusterKey: clusterKey(options) }),
      log,
      logFile,
      initialInstances: options.initialInstances,
    });
    const ofManager = { ...options, initialInstances: 0, disableFixedNodeInitInstance: true };
    const manager = this.#manager = new ManagerService(ofManager, address, log, logFile, null);
    manager.failed.then((reason) => this.#failure.resolve(reason));
    log.info(await manager.start());
    const { givenSockets } = this;
    this.#api = new ApiServerService(options, model, address, log, logFile, givenSockets, null);
    const status = await this.#api.start();
    await agent.join();
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

  handOver(): Promise<Handover> {
    return Promise.reject(
      new UnavailableError(
        "`serve --cluster` is not upgraded in place: stop it and start the new version, one host after " +
          "the other",
      ),
    );
  }

  async takeBack(): Promise<void> {}

  upgradeStatus(): Pick<UpgradeStatus, "instances" | "rollout"> {
    return this.#manager?.upgradeStatus() ?? { instances: [], rollout: null };
  }

  async giveWay(): Promise<void> {}

  noteTakenOver(): void {}

  /** The manager goes last: until then it may lead, and look after the instances that leave. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#api?.[Symbol.asyncDispose]();
    await this.#agent?.[Symbol.asyncDispose]();
    await this.#manager?.[Symbol.asyncDispose]();
    if (this.#directory !== null) removeEmptyDirectory(this.#directory);
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
