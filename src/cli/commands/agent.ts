/** `llumnix agent`: starts instances on this host for a manager that may be on another one. */
import type { Address } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import type { Log } from "../../core/log.ts";
import type { Handover, RoleStatus } from "../../core/protocol/upgrade.ts";
import { AgentRole } from "../../roles/agent/agent.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import type { RoleService } from "../../roles/run_role.ts";
import { startRole } from "../../roles/start_role.ts";
import { startLogging } from "../../roles/start_logging.ts";
import type { Predecessor } from "../../roles/upgrade/successor.ts";
import type { RoleOptions } from "../arguments/tables.ts";
import { toArgv } from "../to_argv.ts";

/** The name on the lines of its log. */
const ROLE = "agent";

/**
 * Runs until it is told to stop, which ends the instances of this host once their requests have left.
 * @returns the exit code: 0 after an orderly stop
 * @throws {LlumnixError} what the operator must change
 */
export function runAgent(options: RoleOptions): Promise<number> {
  const address = managerAddress(options.managerAddress);
  return startRole(
    options,
    { role: ROLE, log: ROLE },
    ({ log, logFile, predecessor }) =>
      new AgentService(options, address, log, logFile, predecessor),
  );
}

/** The agent of this host, from its start until it stops or a successor has the instances. */
export class AgentService implements RoleService {
  readonly role = "agent";
  readonly #failure = Promise.withResolvers<string>();
  /** Null before the start, and once a successor has the instances. */
  #agent: AgentRole | null = null;

  /** @param logFile where this process and its instances log in addition to stderr */
  constructor(
    private readonly options: RoleOptions,
    private readonly address: Address,
    private readonly log: Log,
    private logFile: string | null,
    private readonly predecessor: Predecessor | null,
  ) {}

  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  async start(): Promise<string> {
    if (await this.predecessor?.takeOver()) this.logFile = startLogging(this.options, ROLE);
    const agent = await this.#open();
    await agent.join();
    return `starting instances on ${agent.host}`;
  }

  /** The instances give their requests away, or finish them, and end. */
  async finishRequests(): Promise<void> {
    await this.#agent?.stop();
  }

  kill(): void {
    this.#agent?.kill();
  }

  /** Clients do not connect to an agent. */
  sockets(): readonly number[] {
    return [];
  }

  async handOver(): Promise<Handover> {
    startLogging(this.options, ROLE, true); // the successor claims the log file
    await this.#leave();
    return { managerAddress: null, numInstances: null };
  }

  /** Does not wait for a manager, which may be gone: an agent without one has to stop when it is told to. */
  async takeBack(): Promise<void> {
    this.logFile = startLogging(this.options, ROLE);
    const agent = await this.#open();
    agent.join().catch((error) => {
      if (this.#agent === agent) this.#failure.resolve((error as Error).message); // else it was left
    });
  }

  async upgradeStatus(): Promise<RoleStatus> {
    return await this.#agent?.status() ?? { instances: [], rollout: null };
  }

  /** No request passes through an agent. */
  async giveWay(): Promise<void> {}

  noteTakenOver(): void {
    this.#agent!.replaceAdopted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#leave();
  }

  async #leave(): Promise<void> {
    const agent = this.#agent;
    this.#agent = null;
    await agent?.[Symbol.asyncDispose]();
  }

  async #open(): Promise<AgentRole> {
    const { options, address, log, logFile } = this;
    return this.#agent = await AgentRole.open({
      options,
      managerAddress: address,
      engineArgv: toArgv(options),
      bus: openBus({ clusterKey: clusterKey(options) }),
      log,
      logFile,
      initialInstances: 0,
    });
  }
}
