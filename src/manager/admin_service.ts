import type { CallHandler, Peer } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { ConflictError, LlumnixError, RequestError } from "../core/errors.ts";
import type {
  AdminMigration,
  AdminRequests,
  InstanceChange,
  InstanceName,
  InstanceState,
  InstanceStatus,
  RequestsQuery,
  RequestsReply,
  RequestStatus,
} from "../core/protocol/admin.ts";
import type { AdminCallName, ReplyOf, RequestOf } from "../core/protocol/calls.ts";
import type { InstanceId, RequestId } from "../core/protocol/generate.ts";
import type { MigrationReport } from "../core/protocol/migration.ts";
import type { ManagerOptions } from "../core/options.ts";
import { dispatchLoad } from "./load/load_metric.ts";
import { loadStateOf } from "./load/load_state.ts";
import type { ManagedInstance } from "./fleet/managed_instance.ts";

/** How long an instance may take to say which requests it has. */
const REQUESTS_TIMEOUT_MS = 2_000;
/** How long a migration by hand waits for the migrations that both instances take part in. */
const BUSY_WAIT_MS = 5_000;
const BUSY_POLL_MS = 20;

export interface AdminConfig {
  readonly clock: Clock;
  readonly options: Pick<ManagerOptions, "loadMetric" | "priorityHeadroomBlocks">;
  /** All, also those that start or drain. */
  readonly instances: () => readonly ManagedInstance[];
  /** Throws where a peer may not make these calls. */
  readonly checkOperator: (peer: Peer) => void;
  /** API servers that are connected. */
  readonly frontends: () => readonly Peer[];
  readonly isDrained: (instance: ManagedInstance) => boolean;
  /** The new instance is among the others at once; resolves when it serves. */
  readonly add: () => Promise<unknown>;
  readonly drain: (instanceId: InstanceId) => Promise<unknown>;
  readonly keep: (instanceId: InstanceId) => void;
  /** Drains and stops it. */
  readonly remove: (instanceId: InstanceId) => Promise<unknown>;
  /** Rejects when the source does not report. */
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
 * What whoever operates the service may ask of the manager. What takes long is only begun: the state of
 * the instance tells how it goes.
 */
export class AdminService {
  readonly #config: AdminConfig;
  readonly #handlers: Handlers = {
    admin_instances: () => this.#config.instances().map((instance) => this.#statusOf(instance)),
    admin_requests: () => this.#requests({}),
    admin_add: () => this.#add(),
    admin_drain: (ask) => this.#drain(ask),
    admin_keep: (ask) => this.#keep(ask),
    admin_remove: (ask) => this.#remove(ask),
    admin_migrate: (ask) => this.#migrate(ask),
  };

  constructor(config: AdminConfig) {
    this.#config = config;
  }

  /** What it offers on the bus. */
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
    };
  }

  #statusOf(instance: ManagedInstance): InstanceStatus {
    const { registration, info, launched } = instance;
    return {
      instanceId: instance.instanceId,
      instanceType: instance.type,
      state: this.#stateOf(instance),
      pid: registration?.pid ?? launched?.pid ?? null,
      totalBlocks: registration?.totalBlocks ?? null,
      usedBlocks: info?.usedBlocks ?? null,
      load: this.#loadOf(instance),
      runningRequests: info?.runningRequests ?? null,
      waitingRequests: info?.waitingRequests ?? null,
      killedRequests: info?.killedRequests ?? null,
    };
  }

  #stateOf(instance: ManagedInstance): InstanceState {
    const { isStopping, isLost, registration, peer, isDraining } = instance;
    if (isStopping || isLost) return "stopping";
    if (registration === null) return "starting";
    if (peer === null) return "unreachable";
    if (!isDraining) return "serving";
    return this.#config.isDrained(instance) ? "drained" : "draining";
  }

  #loadOf({ info, isDraining }: ManagedInstance): InstanceStatus["load"] {
    if (info === null) return null;
    const { loadMetric, priorityHeadroomBlocks } = this.#config.options;
    const load = dispatchLoad(
      loadMetric,
      loadStateOf(info, { priorityHeadroomBlocks, isDraining }),
    );
    if (Number.isFinite(load)) return load;
    return load > 0 ? "inf" : "-inf";
  }

  async #requests(query: RequestsQuery): Promise<AdminRequests> {
    const serving = this.#config.instances().filter(({ isServing }) => isServing);
    const frontends = this.#config.frontends();
    const [owned, homeless] = await Promise.all([
      Promise.all(serving.map(({ peer }) => requestsOf(peer, query))),
      Promise.all(frontends.map((peer) => requestsOf(peer, query))),
    ]);
    const replies = [...owned, ...homeless].filter((reply) => reply !== null);
    // One that has just been given to an instance may be in the answers of both: the instance counts.
    const byId = new Map<RequestId, RequestStatus>();
    for (const one of replies.flatMap(({ requests }) => requests)) {
      if (!byId.has(one.requestId)) byId.set(one.requestId, one);
    }
    return {
      requests: [...byId.values()],
      numOmitted: replies.reduce((sum, { numOmitted }) => sum + numOmitted, 0),
      unreachable: serving.filter((_, i) => owned[i] === null).map((one) => one.instanceId).sort(),
    };
  }

  async #add(): Promise<InstanceChange> {
    const before = new Set(this.#config.instances());
    const added = this.#config.add();
    const instance = this.#config.instances().find((one) => !before.has(one));
    if (!instance) await added; // it is refused
    added.catch(() => {}); // the manager tells why
    return { instanceId: instance!.instanceId, state: "starting" };
  }

  #drain({ instanceId }: InstanceName): InstanceChange {
    const instance = this.#serving(instanceId);
    instance.isDrainedByHand = true;
    this.#config.drain(instanceId).catch(() => {}); // it may be lost meanwhile
    return this.#changeOf(instance);
  }

  #keep({ instanceId }: InstanceName): InstanceChange {
    const instance = this.#serving(instanceId);
    instance.isDrainedByHand = false;
    this.#config.keep(instanceId);
    return this.#changeOf(instance);
  }

  #remove({ instanceId }: InstanceName): InstanceChange {
    const instance = this.#serving(instanceId);
    instance.isDrainedByHand = true;
    this.#config.remove(instanceId).catch(() => {});
    return this.#changeOf(instance);
  }

  /** Whatever has been asked for, it may not have happened yet. */
  #changeOf(instance: ManagedInstance): InstanceChange {
    return { instanceId: instance.instanceId, state: this.#stateOf(instance) };
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
      throw new ConflictError(`no instance has ${requestId} yet; try again`);
    }
    const silent = unreachable.length > 0 ? ` (${unreachable.join(", ")} did not answer)` : "";
    throw new LlumnixError("not_found", `no instance has a request "${requestId}"${silent}`);
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
    if (source.peer === null) throw new ConflictError(`${source.instanceId} cannot be reached now`);
    if (isDraining) throw new ConflictError(`${instanceId} drains, and takes no requests`);
    if (!isAvailable) throw new ConflictError(`${instanceId} does not serve now`);
    for (const one of [source, destination]) {
      const { migration, migrationFailure } = one.registration!;
      const problem = migrationFailure ??
        (migration === undefined ? "it was started without --enable-migration" : null);
      if (problem === null) continue;
      throw new ConflictError(`no request moves from or to ${one.instanceId}: ${problem}`);
    }
  }

  /** One migration of an instance at a time. */
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
    const verb = instance.registration === null ? "starts" : "stops";
    throw new ConflictError(`${instanceId} still ${verb}; try again later`);
  }

  #instance(instanceId: InstanceId): ManagedInstance {
    const instances = this.#config.instances();
    const instance = instances.find((one) => one.instanceId === instanceId);
    if (instance && !instance.isLost) return instance;
    const known = instances.map((one) => one.instanceId).join(", ") || "none";
    throw new LlumnixError("not_found", `there is no instance "${instanceId}"; there are ${known}`);
  }
}

/** What one of them says of the requests that it has; null when it does not answer. */
async function requestsOf(peer: Peer | null, query: RequestsQuery): Promise<RequestsReply | null> {
  try {
    const options = { timeoutMs: REQUESTS_TIMEOUT_MS };
    const answer = await peer?.call("requests", { data: query }, options);
    return answer?.data ?? null;
  } catch {
    return null;
  }
}
