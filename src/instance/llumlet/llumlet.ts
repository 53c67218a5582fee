import type { Bus, Peer, Service } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import type { MigrationCallName } from "../../core/protocol/calls.ts";
import type { GenerateRequest, InstanceId, RequestId } from "../../core/protocol/generate.ts";
import type {
  MigrateOutOrder,
  MigrationId,
  MigrationReport,
} from "../../core/protocol/migration.ts";
import type { TransferOptions } from "../../core/options.ts";
import type { KvLayout } from "../../kv/layout.ts";
import type { MigrationBackend } from "../../kv/transfer/backend.ts";
import type { Arrival, ArrivingRequest } from "../engine/incoming_migration.ts";
import type { Departure } from "../engine/outgoing_migration.ts";
import type { RequestQueues } from "./request_choice/policy.ts";
import { chooseRequests } from "./request_choice/request_choice.ts";
import { InstanceLinks } from "./migration_peers.ts";
import { MigrationDestination } from "./migration_destination.ts";
import { MigrationSource, type SourceConfig } from "./migration_source.ts";
import { defaultTimeouts, type MigrationTimeouts } from "./timeouts.ts";

/** What of an `Engine` a llumlet moves requests with. */
export interface MovableEngine {
  queues(): RequestQueues;
  depart(requestId: RequestId): Departure | null;
  arrive(request: ArrivingRequest): Arrival;
  announce(requestId: RequestId): void;
}

export interface LlumletConfig {
  readonly instanceId: InstanceId;
  /** Name of the model; requests move between instances of the same one. */
  readonly model: string;
  readonly layout: KvLayout;
  readonly engine: MovableEngine;
  /** Closed by the llumlet. */
  readonly backend: MigrationBackend;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly limits: Pick<TransferOptions, "lastStageMaxBlocks" | "maxStages">;
  /** Copying takes nothing from steps: stages need not take their time. Default false. */
  readonly copiesBesideSteps?: boolean;
  readonly timeouts?: Partial<MigrationTimeouts>;
  /** A request has become this instance's; called before its first output here. */
  readonly onArrive: (request: GenerateRequest) => void;
  /** A request has become another instance's: no output of it follows. */
  readonly onLeave: (requestId: RequestId) => void;
}

/**
 * Moves requests between this instance and others: carries out the manager's orders, chooses which
 * request leaves, and takes in what comes. One migration at a time, as source or as destination.
 */
export class Llumlet {
  readonly #config: LlumletConfig;
  readonly #timeouts: MigrationTimeouts;
  readonly #links: InstanceLinks;
  readonly #destination: MigrationDestination;
  readonly #sourceConfig: SourceConfig;
  /** An order is being carried out. */
  #isLeaving = false;
  #source: MigrationSource | null = null;
  #isClosed = false;

  /** What it offers on the bus. */
  readonly service: {
    readonly calls: Pick<NonNullable<Service["calls"]>, MigrationCallName>;
    readonly notifications: Pick<NonNullable<Service["notifications"]>, "migrate_cancel">;
  };

  constructor(config: LlumletConfig) {
    const { bus, clock } = config;
    this.#config = config;
    this.#timeouts = { ...defaultTimeouts, ...config.timeouts };
    this.#links = new InstanceLinks(bus, clock, (peer) => this.#source?.closed(peer));
    const timeouts = this.#timeouts;
    this.#destination = new MigrationDestination({
      ...config,
      timeouts,
      isBusy: () => this.isMigrating,
    });
    this.#sourceConfig = { ...config, timeouts, links: this.#links };
    this.service = this.#service();
  }

  /** A request is leaving or coming. */
  get isMigrating(): boolean {
    return this.#isLeaving || this.#destination.isBusy || this.#isClosed;
  }

  /** Carries out an order of the manager. Never rejects. */
  async migrateOut(order: MigrateOutOrder): Promise<MigrationReport> {
    if (this.isMigrating) return this.#nothing(order, "the instance is migrating already");
    if (!this.#config.backend.isReady) return this.#nothing(order, "the backend is not ready");
    this.#isLeaving = true;
    try {
      return await this.#migrateChosen(order, this.#choose(order));
    } finally {
      this.#isLeaving = false;
      this.#source = null;
    }
  }

  /** A client wants no more of a request, wherever it is. */
  abortRequest(requestId: RequestId): void {
    if (this.#source?.requestId === requestId) this.#source.abortRequest();
  }

  /** A connection to this instance has ended. */
  closed(peer: Peer): void {
    this.#destination.closed(peer);
  }

  /** Gives up what is under way; requests stay where they are. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#source?.stop();
    await this.#links.close();
    await this.#config.backend.close();
  }

  #service(): Llumlet["service"] {
    const { calls } = this.#config.backend;
    return {
      calls: {
        ...calls,
        migrate_out: async ({ data }) => ({ data: await this.migrateOut(data) }),
        migrate_in: ({ data }, peer) => ({
          data: this.#destination.open(data, peer),
        }),
        migrate_reserve: async ({ data }) => ({
          data: await this.#destination.reserve(data),
        }),
        migrate_commit: ({ data }) => {
          this.#destination.commit(data);
          return { data: null };
        },
        migrate_settle: ({ data }) => ({ data: this.#destination.settle(data.migrationId) }),
      },
      notifications: {
        migrate_cancel: ({ data }) => this.#destination.cancel(data.migrationId),
      },
    };
  }

  #choose(order: MigrateOutOrder): readonly RequestId[] {
    if (order.requestId !== undefined && order.aim === undefined) return [order.requestId];
    const { requestIds } = chooseRequests(this.#config.engine.queues(), order.policy, order);
    return requestIds.slice(0, order.maxRequests);
  }

  /** One after the other, until one cannot. */
  async #migrateChosen(
    order: MigrateOutOrder,
    requestIds: readonly RequestId[],
  ): Promise<MigrationReport> {
    const { clock, onLeave } = this.#config;
    const deadlineMs = clock.nowMs() + this.#timeouts.orderMs;
    const reports: MigrationReport[] = [];
    for (const requestId of requestIds) {
      const departure = this.#config.engine.depart(requestId);
      if (!departure) break;
      this.#source = new MigrationSource(this.#sourceConfig, {
        migrationId: nthId(order.migrationId, reports.length),
        destination: order.destination,
        departure,
        isBlocking: departure.isHeld,
        isUrgent: order.isUrgent === true,
        deadlineMs,
      });
      const report = await this.#source.run();
      reports.push(report);
      if (report.outcome !== "committed") break;
      onLeave(requestId);
    }
    const last = reports.pop();
    if (!last) return this.#nothing(order, "no request may leave");
    return reports.length > 0 ? { ...last, earlier: reports } : last;
  }

  #nothing({ migrationId, destination }: MigrateOutOrder, reason: string): MigrationReport {
    return {
      migrationId,
      sourceId: this.#config.instanceId,
      destinationId: destination.instanceId,
      requestId: null,
      outcome: "nothing",
      reason,
      lengthTokens: 0,
      stages: 0,
      blocks: 0,
      transfer: { bytes: 0, descriptors: 0, rounds: 0, transferMs: 0 },
      downtimeMs: 0,
      totalMs: 0,
    };
  }
}

/** Names of the migrations of one order. */
function nthId(migrationId: MigrationId, n: number): MigrationId {
  return n === 0 ? migrationId : `${migrationId}/${n}`;
}
