/** `llumnix manager`: the manager and its instances, for API servers that run apart. */
import type { Address } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import type { Audience } from "../../cluster/leadership/audience.ts";
import type { ElectionChange } from "../../cluster/leadership/election.ts";
import { realClock, sleep } from "../../core/clock.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { Log } from "../../core/log.ts";
import type { Leadership } from "../../core/protocol/leadership.ts";
import type { Handover, RoleStatus, TakeOver } from "../../core/protocol/upgrade.ts";
import { toArgv } from "../to_argv.ts";
import type { RoleOptions } from "../arguments/tables.ts";
import { ManagerRole } from "../../roles/manager.ts";
import {
  audienceOf,
  type Candidacy,
  type ClusterPlace,
  clusterPlace,
  leadershipStatus,
  stand,
} from "../../roles/cluster.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import {
  managerAddress,
  type ManagerPlace,
  takeManagerPlace,
  takenError,
} from "../../roles/manager_address.ts";
import { servedSettings } from "../../roles/served_model.ts";
import { metricsPlace } from "../../roles/metrics_place.ts";
import type { RoleService } from "../../roles/run_role.ts";
import { startRole } from "../../roles/start_role.ts";
import { startLogging } from "../../roles/start_logging.ts";
import type { Predecessor } from "../../roles/upgrade/successor.ts";

/** The name on the lines of its log. */
const ROLE = "manager";
const HOST_NAME = Deno.hostname();
/** Time for the successor of a leader to lead. */
const LEAD_WAIT_MS = 10_000;
const POLL_MS = 50;

/**
 * Runs until it is told to stop, which stops its instances.
 * @returns the exit code: 0 after an orderly stop, 1 if no instance serves and none can start
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export function runManager(options: RoleOptions): Promise<number> {
  const address = managerAddress(options.managerAddress);
  return startRole(
    options,
    { role: ROLE, log: ROLE },
    ({ log, logFile, predecessor }) =>
      new ManagerService(options, address, log, logFile, predecessor),
  );
}

/** A manager, and the address that it holds. */
export class ManagerService implements RoleService {
  readonly role = "manager";
  readonly #failure = Promise.withResolvers<string>();
  #place: ManagerPlace | null = null;
  #role: ManagerRole | null = null;
  #candidacy: Candidacy | null = null;
  /** It leads, and has the instances. */
  #isLeading = false;
  /** It gives up its place, and must not lead again. */
  #isLeaving = false;
  readonly #audience: Audience;
  /** One after the other: a manager may lead again before it has given its instances away. Never rejects. */
  #roleChanges: Promise<void> = Promise.resolve();
  readonly #processId = `${HOST_NAME}-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`;

  /**
   * @param logFile where this process and its instances log in addition to stderr
   * @param predecessor the process that this one replaces once it has given up its place; null: none
   * @param isSuccessor it takes the place of another manager of this host
   */
  constructor(
    private readonly options: RoleOptions,
    private readonly address: Address,
    private readonly log: Log,
    private logFile: string | null,
    private readonly predecessor: Predecessor | null,
    private readonly isSuccessor = predecessor !== null,
  ) {
    this.#audience = audienceOf(options);
  }

  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  /** Agents of hosts start the instances. */
  get #hasAgents(): boolean {
    return this.options.disableFixedNodeInitInstance;
  }

  /** Its instances are on hosts that other managers lead as well. */
  get #leavesInstances(): boolean {
    return this.#candidacy !== null && this.#hasAgents;
  }

  async start(): Promise<string> {
    const handover = await this.predecessor?.takeOver(this.#processId);
    if (handover !== undefined) this.logFile = startLogging(this.options, ROLE);
    const place = clusterPlace(this.options);
    if (place !== null) return await this.#standForElection(place);
    await this.#startManager(handover?.numInstances ?? undefined);
    return `managing instances at ${this.address}`;
  }

  async finishRequests(limitMs: number): Promise<void> {
    if (this.#leavesInstances) return;
    await this.#role?.manager.finishRequests(limitMs);
  }

  kill(): void {
    this.#role?.manager.kill();
  }

  /** Clients do not connect to a manager. */
  sockets(): readonly number[] {
    return [];
  }

  async handOver({ candidate }: TakeOver): Promise<Handover> {
    startLogging(this.options, ROLE, true); // the successor claims the log file
    return await this.leave(candidate);
  }

  async takeBack(): Promise<void> {
    this.logFile = startLogging(this.options, ROLE);
    await this.comeBack();
  }

  /**
   * Gives the place to another process of this host. Of a cluster's managers the next one leads at once: a
   * follower, or, if this one has started instances, the other process, which replaces them.
   * @param candidate the other process, as a candidate for the leadership
   * @throws {UnavailableError} the lease store does not answer, so that no other manager could take over
   */
  async leave(candidate?: string): Promise<Handover> {
    const { storeProblem = null } = this.#candidacy?.candidate ?? {};
    if (storeProblem !== null) {
      throw new UnavailableError(
        `the lease store does not answer, and without it no manager can take over from this one: try again ` +
          `when it does (${storeProblem.message})`,
      );
    }
    const numInstances = this.#candidacy === null ? this.#role!.manager.numWanted : null;
    const heir = this.#hasAgents ? undefined : candidate;
    this.#isLeaving = true;
    this.#isLeading = false;
    await this.#roleChanges;
    await this.#role!.handOver(() => this.#resign(heir));
    this.#place!.leave();
    return { managerAddress: this.address, numInstances };
  }

  /** Takes the place again, after the other process has failed; nothing to do if this one has not left. */
  async comeBack(): Promise<void> {
    if (!this.#isLeaving) return;
    this.#isLeaving = false;
    const place = clusterPlace(this.options);
    if (place !== null) await this.#standForElection(place);
    else await this.#startManager(this.#role!.manager.numWanted);
  }

  upgradeStatus(): RoleStatus {
    return this.#role?.upgradeStatus() ?? { instances: [], rollout: null };
  }

  /** No request passes through a manager. */
  async giveWay(): Promise<void> {}

  noteTakenOver(): void {
    this.#replaceTakenOver();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isLeaving) return; // another process has all of it
    this.#isLeaving = true;
    await this.#roleChanges;
    if (this.#leavesInstances) {
      await this.#role?.handOver(() => this.#resign());
      await this.#place?.release();
      return;
    }
    await this.#resign(); // before its instances go, which another one takes over
    await this.#role?.[Symbol.asyncDispose]();
    if (this.#role?.isHandedOver !== true) await this.#place?.release();
  }

  /** Of a cluster's managers only the one that leads replaces instances. */
  async #replaceTakenOver(): Promise<void> {
    const untilMs = realClock.nowMs() + LEAD_WAIT_MS;
    while (this.#mayLeadSoon() && realClock.nowMs() < untilMs) await sleep(realClock, POLL_MS);
    this.#role?.replaceTakenOver();
  }

  /** It is about to lead, or leads and waits for the instances to join. */
  #mayLeadSoon(): boolean {
    if (this.#candidacy === null || this.#hasAgents || this.#isLeading) return false;
    const leader = this.#candidacy.candidate.record?.leader ?? "";
    return leader === "" || leader === this.#processId;
  }

  /** @param heir who leads next; default: any follower */
  async #resign(heir?: string): Promise<void> {
    const candidacy = this.#candidacy;
    this.#candidacy = null;
    await candidacy?.resign(heir);
  }

  /** Listens before it stands: followers take a refused connection for the end of a leader. */
  async #standForElection(place: ClusterPlace): Promise<string> {
    this.#place = await takeManagerPlace(this.address);
    this.#role = await this.#listen();
    this.#candidacy = await stand({
      place,
      processId: this.#processId,
      address: this.address,
      bus: openBus({ clusterKey: clusterKey(this.options) }),
      log: this.log,
      heard: () => this.#audience.size,
      settings: await servedSettings(this.options) ?? undefined,
      onStranger: (reason) => this.#failure.resolve(reason),
      onChange: (change) => {
        this.#roleChanges = this.#roleChanges.then(() => this.#changeRole(change));
      },
    });
    return `standing for election in ${place.cluster}, at ${this.address}`;
  }

  async #changeRole(change: ElectionChange): Promise<void> {
    if (this.#isLeaving) return;
    if (change.type === "leads") return this.#beginLeading(change.leadership);
    this.#isLeading = false;
    try {
      this.log.warn(`leading no more: ${change.reason}`);
      // The instances go to the leader; this manager starts anew, and follows.
      await this.#role!.handOver();
      if (!this.#isLeaving) this.#role = await this.#listen();
    } catch (error) {
      this.#failure.resolve((error as Error).message);
    }
  }

  #beginLeading({ epoch }: Leadership): void {
    const leads = () => this.#candidacy?.candidate.leadership?.epoch === epoch;
    if (this.#candidacy !== null && !leads()) return; // it was over before its turn came
    this.log.info(`leading in epoch ${epoch}, at ${this.address}`);
    // The instances of the leader before join first.
    const wasLed = epoch > 1;
    const place = wasLed ? { ...this.#place!, wasAbandoned: true, survivors: null } : undefined;
    // Not awaited: instances may take long to start, and this manager may have to follow meanwhile.
    this.#role!.startInstances(place).then(() => this.#isLeading = leads(), (error) => {
      if (leads()) this.#failure.resolve((error as Error).message);
    });
  }

  async #startManager(numInstances: number | undefined): Promise<void> {
    const place = this.#place = await takeManagerPlace(this.address);
    const role = this.#role = await this.#listen();
    this.log.info(`listening at ${this.address}`);
    await role.startInstances(place, numInstances);
  }

  async #listen(): Promise<ManagerRole> {
    const { options, address, log, logFile } = this;
    try {
      return await ManagerRole.listen({
        options,
        engineArgv: toArgv(options),
        bus: openBus({ clusterKey: clusterKey(options) }),
        addresses: [address],
        metrics: await metricsPlace(options),
        cluster: options.cluster
          ? {
            processId: this.#processId,
            hostName: options.hostName ?? undefined,
            leadership: () => this.#candidacy?.candidate.leadership ?? null,
            status: () => leadershipStatus(this.#candidacy?.candidate ?? null),
            onSuperseded: (known) => this.#candidacy?.candidate.learn(known),
            onHeard: (instanceId) => this.#audience.note(instanceId),
          }
          : undefined,
        hasAgents: this.#hasAgents,
        orphanTimeoutMs: options.orphanTimeout * 1000,
        log,
        logFile,
        isSuccessor: this.isSuccessor || this.#role !== null,
        onEvent: ({ type }) => {
          if (type !== "given_up") return;
          this.#failure.resolve("no instance serves, and none can start");
        },
      });
    } catch (error) {
      const { cause } = error as Error;
      if (error instanceof UnavailableError && cause instanceof Deno.errors.AddrInUse) {
        throw takenError(address);
      }
      throw error;
    }
  }
}
