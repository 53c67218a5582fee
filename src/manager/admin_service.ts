import type { CallHandler, Peer } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { ConflictError, LlumnixError, RequestError } from "../core/errors.ts";
import type {
  AdminMigration,
  AdminRequests,
  HostDrainOrder,
  HostName,
  HostStatus,
  InstanceChange,
  InstanceName,
  InstanceStatus,
  RequestsQuery,
  RequestsReply,
  RequestStatus,
} from "../core/protocol/admin.ts";
import type { AdminCallName, ReplyOf, RequestOf } from "../core/protocol/calls.ts";
import type { InstanceId, RequestId } from "../core/protocol/generate.ts";
import type { MigrationReport } from "../core/protocol/migration.ts";
import type { Hosts } from "./fleet/hosts.ts";
import type { InstanceKeeper } from "./fleet/instance_keeper.ts";
import type { ManagedInstance } from "./fleet/managed_instance.ts";
import { stateOf, statusOf, type StatusOptions } from "./instance_status.ts";

/** Time for an instance to answer which requests it has. */
const REQUESTS_TIMEOUT_MS = 2_000;
/** How long a migration by hand waits while either instance takes part in another migration. */
const BUSY_WAIT_MS = 5_000;
const BUSY_POLL_MS = 20;

export interface AdminConfig {
  readonly clock: Clock;
  readonly options: StatusOptions;
  /** All instances, starting and draining ones too. */
  readonly instances: () => readonly ManagedInstance[];
  /** Throws if a peer may not make these calls. */
  readonly checkOperator: (peer: Peer) => void;
  /** The connected API servers. */
  readonly frontends: () => readonly Peer[];
  readonly keeper: Pick<InstanceKeeper, "add" | "drain" | "keep" | "remove">;
  readonly hosts: Pick<Hosts, "drain" | "keep" | "statusOf" | "statuses">;
  /** Moves a request. Rejects if the source does not report. */
  readonly migrate: (
    source: ManagedInstance,
    destination: ManagedInstance,
    requestId: RequestId,
  ) => Promise<MigrationReport>;
}

/** Answers to what an operator asks. */
type Handlers = {
  readonly [M in AdminCallName]: (ask: RequestOf<M>) => ReplyOf<M> | Promise<ReplyOf<M>>;
};

/**
 * What operators can ask of the manager. Changes that take long are only begun: the answer is the state of
 * the instance, and later answers show how it goes on.
 */
export class AdminService {
  readonly #config: AdminConfig;
  readonly #handlers: Handlers = {
    admin_instances: () => this.#statuses(),
    admin_requests: () => this.#requests({}),
    admin_add: () => this.#add(),
    admin_drain: (ask) => this.#drain(ask),
    admin_keep: (ask) => this.#keep(ask),
    admin_remove: (ask) => this.#remove(ask),
    admin_migrate: (ask) => this.#migrate(ask),
    admin_hosts: () => this.#config.hosts.statuses(),
    admin_drain_host: (ask) => this.#drainHost(ask),
    admin_keep_host: (ask) => this.#keepHost(ask),
  };

  constructor(config: AdminConfig) {
    this.#config = config;
  }

  /** The calls that it answers on the bus. */
  get calls(): { readonly [M in AdminCallName]: CallHandler<M> } {
    const handlerOf =
      <M extends AdminCallName>(method: M): CallHandler<M> => async ({ data }, peer) => {
        this.#config.checkOperator(peer);
        return { data: await this.#handlers[method](data) };
      };
    return {
      admin_instances: handlerOf("admin_instances"),
      admin_requests: handlerOf("admin_requests"),
      admin_add: handlerOf("admin_add"),
      admin_drain: handlerOf("admin_drain"),
      admin_keep: handlerOf("admin_keep"),
      admin_remove: handlerOf("admin_remove"),
      admin_migrate: handlerOf("admin_migrate"),
      admin_hosts: handlerOf("admin_hosts"),
      admin_drain_host: handlerOf("admin_drain_host"),
      admin_keep_host: handlerOf("admin_keep_host"),
    };
  }

  #statuses(): InstanceStatus[] {
    const { clock, instances, options } = this.#config;
    return instances().map((instance) => statusOf(instance, options, clock.nowMs()));
  }

  async #requests(query: RequestsQuery): Promise<AdminRequests> {
    const serving = this.#config.instances().filter(({ isServing }) => isServing);
    const frontends = this.#config.frontends();
    const [placed, unplaced] = await Promise.all([
      Promise.all(serving.map(({ peer }) => requestsOf(peer, query))),
      Promise.all(frontends.map((peer) => requestsOf(peer, query))),
    ]);
    const replies = [...placed, ...unplaced].filter((reply) => reply !== null);
    // A request that is just being placed may be in the answers of its API server and its instance: the
    // instance's answer comes first, and counts.
    const byId = new Map<RequestId, RequestStatus>();
    for (const one of replies.flatMap(({ requests }) => requests)) {
      if (!byId.has(one.requestId)) byId.set(one.requestId, one);
    }
    return {
      requests: [...byId.values()],
      numOmitted: replies.reduce((sum, { numOmitted }) => sum + numOmitted, 0),
      unreachable: serving.filter((_, i) => placed[i] === null).map((one) => one.instanceId).sort(),
    };
  }

  async #add(): Promise<InstanceChange> {
    const before = new Set(this.#config.instances());
    const added = this.#config.keeper.add();
    const instance = this.#config.instances().find((one) => !before.has(one));
    if (!instance) await added; // rejects: no instance may be added now
    added.catch(() => {}); // a failed start is an event of the manager
    return { instanceId: instance!.instanceId, state: "starting" };
  }

  #drain({ instanceId }: InstanceName): InstanceChange {
    const instance = this.#serving(instanceId);
    this.#config.keeper.drain(instanceId, "operator").catch(() => {}); // the instance may be lost meanwhile
    return this.#changeOf(instance);
  }

  #keep({ instanceId }: InstanceName): InstanceChange {
    const instance = this.#serving(instanceId);
    this.#config.keeper.keep(instanceId);
    return this.#changeOf(instance);
  }

  #remove({ instanceId }: InstanceName): InstanceChange {
    const instance = this.#serving(instanceId);
    this.#config.keeper.remove(instanceId, "operator").catch(() => {});
    return this.#changeOf(instance);
  }

  #drainHost({ hostName, atOnce }: HostDrainOrder): HostStatus {
    const { hosts } = this.#config;
    const before = hosts.statusOf(hostName); // throws: there is no such host
    hosts.drain(hostName, atOnce).catch(() => {}); // its instances may be lost meanwhile
    return hosts.statuses().find((host) => host.hostName === hostName) ?? before;
  }

  #keepHost({ hostName }: HostName): HostStatus {
    const { hosts } = this.#config;
    const before = hosts.statusOf(hostName);
    hosts.keep(hostName);
    return hosts.statuses().find((host) => host.hostName === hostName) ?? before;
  }

  /** The state of the instance now; the change that was asked for may not have happened yet. */
  #changeOf(instance: ManagedInstance): InstanceChange {
    return {
      instanceId: instance.instanceId,
      state: stateOf(instance, this.#config.clock.nowMs()),
    };
  }

  async #migrate({ requestId, destinationId }: AdminMigration): Promise<MigrationReport> {
    const destination = this.#instance(destinationId);
    const source = await this.#ownerOf(requestId);
    this.#checkPair(requestId, source, destination);
    await this.#untilFree(source, destination);
    this.#checkPair(requestId, source, destination);
    const report = await this.#config.migrate(source, destination, requestId);
    if (report.outcome === "committed") return report;
    throw new ConflictError(`${requestId} stays on ${source.instanceId}: ${report.reason}`);
  }

  async #ownerOf(requestId: RequestId): Promise<ManagedInstance> {
    const { requests, unreachable } = await this.#requests({ requestIds: [requestId] });
    if (requests.length > 0) {
      const { instanceId } = requests[0];
      if (instanceId !== null) return this.#instance(instanceId);
      throw new ConflictError(`no instance has request ${requestId} yet; try again`);
    }
    const silent = unreachable.length > 0 ? ` (${unreachable.join(", ")} did not answer)` : "";
    throw new LlumnixError(
      "not_found",
      `no instance has a request "${requestId}"${silent}; it may have ended`,
    );
  }

  #checkPair(
    requestId: RequestId,
    source: ManagedInstance,
    destination: ManagedInstance,
  ): void {
    const { instanceId, type, isDraining, isAvailable } = destination;
    if (source.instanceId === instanceId) {
      throw new RequestError(`${requestId} is on ${instanceId} already`, "instance");
    }
    if (source.type !== type) {
      throw new RequestError(
        `${requestId} is on ${source.instanceId}, a ${source.type} instance, and ${instanceId} is ` +
          `a ${type} instance: requests are moved by hand between instances of one type`,
        "instance",
      );
    }
    if (source.peer === null) {
      throw new ConflictError(`${source.instanceId} cannot be reached now; try again later`);
    }
    if (isDraining) throw new ConflictError(`${instanceId} is draining and takes no requests`);
    if (!isAvailable) throw new ConflictError(`${instanceId} does not serve now; try again later`);
    for (const one of [source, destination]) {
      const { migration, migrationFailure } = one.registration!;
      const problem = migrationFailure ??
        (migration === undefined ? "it was started without --enable-migration" : null);
      if (problem === null) continue;
      throw new ConflictError(`no request can move from or to ${one.instanceId}: ${problem}`);
    }
  }

  /** Waits until neither instance takes part in a migration: each does so in one at a time. */
  async #untilFree(source: ManagedInstance, destination: ManagedInstance): Promise<void> {
    const { clock } = this.#config;
    const untilMs = clock.nowMs() + BUSY_WAIT_MS;
    while (source.migrationId !== null || destination.migrationId !== null) {
      if (clock.nowMs() >= untilMs) {
        const busy = source.migrationId !== null ? source : destination;
        throw new ConflictError(`${busy.instanceId} is in another migration; try again`);
      }
      await sleep(clock, BUSY_POLL_MS);
    }
  }

  #serving(instanceId: InstanceId): ManagedInstance {
    const instance = this.#instance(instanceId);
    if (instance.isServing) return instance;
    if (instance.phase === "starting") {
      throw new ConflictError(`${instanceId} is still starting; try again later`);
    }
    throw new ConflictError(`${instanceId} is stopping`);
  }

  #instance(instanceId: InstanceId): ManagedInstance {
    const instances = this.#config.instances();
    const instance = instances.find((one) => one.instanceId === instanceId);
    if (instance && !instance.isLost) return instance;
    const known = instances.map((one) => one.instanceId).join(", ") || "none";
    throw new LlumnixError(
      "not_found",
      `there is no instance "${instanceId}"; the instances are: ${known}`,
    );
  }
}

/** The requests of an instance, or the unplaced ones of an API server; null if it does not answer. */
async function requestsOf(peer: Peer | null, query: RequestsQuery): Promise<RequestsReply | null> {
  try {
    const options = { timeoutMs: REQUESTS_TIMEOUT_MS };
    const answer = await peer?.call("requests", { data: query }, options);
    return answer?.data ?? null;
  } catch {
    return null;
  }
}
