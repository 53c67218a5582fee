/** The role of the agent: one for each host, it starts and ends instances there for the manager that leads. */
import { HostAgent } from "../../agent/host_agent.ts";
import type { Address, Bus } from "../../bus/bus.ts";
import { realClock } from "../../core/clock.ts";
import { HostProcess } from "../../core/host_process.ts";
import { LeaderFence } from "../../core/leader_fence.ts";
import type { Log } from "../../core/log.ts";
import type { RoleStatus } from "../../core/protocol/upgrade.ts";
import { fullVersion } from "../../core/version.ts";
import { InstanceRollout } from "../../manager/fleet/rollout.ts";
import { checkHostOf, checkOwnAddress } from "../../instance/instance_socket.ts";
import { clusterPlace, findLeader } from "../cluster.ts";
import { type LauncherConfig, launcherOf } from "../launchers.ts";
import { servedSettings } from "../served_model.ts";
import { showRollout } from "../upgrade/show_rollout.ts";
import { hostName, hostResources, hostSlots, machineId } from "./host_facts.ts";
import { InstanceRecordFile } from "./instance_records.ts";

/** What the end of an instance may take on top of `--drain-timeout`. */
const END_MS = 5_000;

export interface AgentRoleConfig {
  readonly options: LauncherConfig["options"] & {
    readonly hostName: string | null;
    readonly hostSlots: number | null;
    readonly advertiseHost: string | null;
    readonly orphanTimeout: number;
  };
  /** The manager's address; with `--cluster` it is found. */
  readonly managerAddress: Address;
  readonly engineArgv: readonly string[];
  readonly bus: Bus;
  readonly log: Log;
  readonly logFile: string | null;
  /** Instances that the service should have more for this host. */
  readonly initialInstances: number;
}

/** An agent with its records, and what tells it who leads. */
export class AgentRole implements AsyncDisposable {
  readonly #disposables = new AsyncDisposableStack();
  #rollout: InstanceRollout | null = null;

  private constructor(
    private readonly config: AgentRoleConfig,
    private readonly agent: HostAgent,
    private readonly fence: LeaderFence,
    readonly host: string,
  ) {}

  /**
   * Takes the host's name, and the instances of a former agent. Call {@linkcode join} next.
   * @throws {UnavailableError} this host does not have the address of `--advertise-host`
   * @throws {UsageError} the name is none, or another agent of this machine has it; there are more slots
   *   than devices; no other host can reach `--advertise-host`
   */
  static async open(config: AgentRoleConfig): Promise<AgentRole> {
    const { options, engineArgv, bus, log, logFile, initialInstances } = config;
    const host = hostName(options.hostName);
    checkAdvertised(options, config.managerAddress);
    if (options.advertiseHost !== null) {
      checkOwnAddress(options.advertiseHost, "--advertise-host");
    }
    const slots = hostSlots(options, options.hostSlots, initialInstances);
    const records = await InstanceRecordFile.open(host);
    const fence = new LeaderFence(`host ${host}`);
    const agent = new HostAgent({
      bus,
      clock: realClock,
      log,
      fence,
      facts: {
        host,
        pid: Deno.pid,
        machine: machineId(),
        resources: hostResources(),
        slots,
        initialInstances,
        settings: await servedSettings(options) ?? undefined,
      },
      launcher: launcherOf({
        options,
        engineArgv,
        bus,
        log,
        logFile,
        hostShare: slots,
        orphanTimeoutMs: options.orphanTimeout * 1000,
        moreArgv: [
          `--host-name=${host}`,
          ...(options.advertiseHost === null ? [] : [`--host=${options.advertiseHost}`]),
        ],
      }),
      advertiseHost: options.advertiseHost,
      records,
      startOf: (pid) => HostProcess.startOf(pid),
      find: ({ pid, processStart }) => {
        const found = HostProcess.started(pid, processStart);
        return found &&
          { hasEnded: () => found.hasEnded(), stop: (signal) => found.signal(signal) };
      },
    });
    const role = new AgentRole(config, agent, fence, host);
    role.#disposables.use(records);
    role.#disposables.defer(() => agent.close());
    return role;
  }

  /**
   * Finds the manager, and waits until it has taken the host.
   * @throws {UsageError} the manager refuses the host, or no other host can reach `--advertise-host`
   * @throws {UnavailableError} with `--cluster`: no manager has led within a minute
   */
  async join(): Promise<void> {
    const { agent, fence, config: { options, log, managerAddress } } = this;
    const place = clusterPlace(options);
    const leader = place &&
      await findLeader({ place, fence, log, onMove: (to) => agent.moveTo(to) });
    if (leader) this.#disposables.use(leader);
    if (leader) checkAdvertised(options, leader.address);
    agent.moveTo(leader?.address ?? managerAddress);
    await agent.joined;
  }

  /** Has the instances of a former agent replaced, one after the other, by ones of this executable. */
  replaceAdopted(): void {
    const { agent, config: { log } } = this;
    this.#rollout = new InstanceRollout({
      keeper: agent,
      instances: agent.adoptedIds.sort(),
      onReplace: (instanceId, number) => {
        const { total } = this.#rollout!.status;
        log.info(`replacing ${instanceId} (${number} of ${total}) by one of ${fullVersion()}`);
      },
    });
    this.#rollout.done.then((outcome) => showRollout(outcome, log));
  }

  async status(): Promise<RoleStatus> {
    return { instances: await this.agent.versions(), rollout: this.#rollout?.status ?? null };
  }

  /** Takes the host out of the service: its instances give their requests away, or finish them, and end. */
  async stop(): Promise<void> {
    await this.agent.stop(this.config.options.drainTimeout * 1000 + END_MS);
  }

  /** Ends the instances at once. */
  kill(): void {
    this.agent.kill();
  }

  /** Leaves the instances alone, to the next agent of this host: see {@linkcode stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync();
  }
}

function checkAdvertised({ advertiseHost }: AgentRoleConfig["options"], manager: Address): void {
  if (advertiseHost !== null) checkHostOf(manager, advertiseHost, "--advertise-host");
}
