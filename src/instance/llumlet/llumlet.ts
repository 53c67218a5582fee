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
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import type { MigrationBackend } from "../../kv/transfer/backend.ts";
import type { IncomingMigration, IncomingRequest } from "../engine/incoming_migration.ts";
import type { OutgoingMigration } from "../engine/outgoing_migration.ts";
import type { RequestQueues } from "./request_choice/policy.ts";
import { chooseRequests } from "./request_choice/request_choice.ts";
import { Crossover, type CrossoverSetting, type PathMeasure } from "./crossover.ts";
import { MigrationPeers } from "./migration_peers.ts";
import { DestinationSide } from "./migration_destination.ts";
import { type SourceConfig, SourceSide } from "./migration_source.ts";
import { defaultTimeouts, type MigrationTimeouts } from "./timeouts.ts";

/** The part of an `Engine` that a llumlet uses. */
export interface MovableEngine {
  queues(): RequestQueues;
  /** Milliseconds in which a token of a prompt is computed; null before the first prompt. */
  readonly prefillTokenMs: number | null;
  beginOutgoing(requestId: RequestId): OutgoingMigration | null;
  beginIncoming(request: IncomingRequest): IncomingMigration;
  announce(requestId: RequestId): void;
}

export interface LlumletConfig {
  readonly instanceId: InstanceId;
  /** Name of the model. Requests move only between instances of the same model. */
  readonly model: string;
  readonly layout: KvLayout;
  readonly engine: MovableEngine;
  /** Closed by the llumlet. */
  readonly backend: MigrationBackend;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly limits: Pick<TransferOptions, "lastStageMaxBlocks" | "maxStages">;
  /** Copying does not slow steps, so that no stage needs to be slow. Default false. */
  readonly copiesBesideSteps?: boolean;
  /** Which running requests are recomputed in place of moved. Default: none. */
  readonly crossover?: CrossoverSetting;
  /** Told what moving to another instance takes. */
  readonly onPathMeasured?: (measure: PathMeasure) => void;
  readonly timeouts?: Partial<MigrationTimeouts>;
  /** A request has moved here; called before its first output. */
  readonly onMovedIn: (request: GenerateRequest) => void;
  /** A request has moved away: no output of it follows. */
  readonly onMovedOut: (requestId: RequestId) => void;
}

/**
 * Moves requests between this instance and others: carries out the manager's orders, chooses the
 * request that moves, and takes in requests of other instances. An instance takes part in one
 * migration at a time, as source or as destination. README.md tells how a migration goes.
 */
export class Llumlet {
  readonly #config: LlumletConfig;
  readonly #timeouts: MigrationTimeouts;
  readonly #peers: MigrationPeers;
  readonly #destination: DestinationSide;
  readonly #sourceConfig: SourceConfig;
  readonly #crossover: Crossover;
  /** An order is being carried out. */
  #hasOrder = false;
  #source: SourceSide | null = null;
  #isClosed = false;

  /** The calls and notifications of other instances and of the manager. */
  readonly service: {
    readonly calls: Pick<NonNullable<Service["calls"]>, MigrationCallName>;
    readonly notifications: Pick<NonNullable<Service["notifications"]>, "migrate_cancel">;
  };

  constructor(config: LlumletConfig) {
    const { bus, clock, layout, engine } = config;
    this.#config = config;
    this.#timeouts = { ...defaultTimeouts, ...config.timeouts };
    this.#peers = new MigrationPeers(bus, clock, (peer) => this.#source?.closed(peer));
    const timeouts = this.#timeouts;
    this.#destination = new DestinationSide({
      ...config,
      timeouts,
      isBusy: () => this.isMigrating,
    });
    this.#sourceConfig = { ...config, timeouts, peers: this.#peers };
    this.#crossover = new Crossover({
      setting: config.crossover ?? 0,
      bytesPerToken: blockBytes(layout) / layout.blockSize,
      nowMs: () => clock.nowMs(),
      prefillTokenMs: () => engine.prefillTokenMs,
      onMeasure: config.onPathMeasured,
    });
    this.service = this.#service();
  }

  /** A migration to or from this instance is under way, or the llumlet is closed. */
  get isMigrating(): boolean {
    return this.#hasOrder || this.#destination.isBusy || this.#isClosed;
  }

  /** Carries out an order of the manager. Never rejects. */
  async migrateOut(order: MigrateOutOrder): Promise<MigrationReport> {
    if (this.isMigrating) {
      return this.#nothing(order, "the instance takes part in another migration");
    }
    if (!this.#config.backend.isReady) {
      return this.#nothing(order, "the migration backend is not ready");
    }
    this.#hasOrder = true;
    try {
      return await this.#migrateChosen(order, this.#choose(order));
    } finally {
      this.#hasOrder = false;
      this.#source = null;
    }
  }

  /** A client has aborted a request, wherever it is now. */
  abortRequest(requestId: RequestId): void {
    if (this.#source?.requestId === requestId) this.#source.abortRequest();
  }

  /** A connection to this instance has ended. */
  closed(peer: Peer): void {
    this.#destination.closed(peer);
  }

  /** Gives up the migration under way, and closes connections and backend. Requests stay here. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#source?.stop();
    await this.#peers.close();
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

  /** Moves the chosen requests one after the other, until one cannot move. */
  async #migrateChosen(
    order: MigrateOutOrder,
    requestIds: readonly RequestId[],
  ): Promise<MigrationReport> {
    const { clock, onMovedOut } = this.#config;
    const deadlineMs = clock.nowMs() + this.#timeouts.orderMs;
    const reports: MigrationReport[] = [];
    for (const requestId of requestIds) {
      const migrationId = nthId(order.migrationId, reports.length);
      const report = await this.#migrate(order, requestId, migrationId, deadlineMs);
      if (report === null) break;
      reports.push(report);
      if (report.outcome !== "committed") break;
      onMovedOut(requestId);
    }
    const last = reports.pop();
    if (!last) return this.#nothing(order, "no request can move");
    return reports.length > 0 ? { ...last, earlier: reports } : last;
  }

  /** Moves one request. Null: it cannot move. */
  async #migrate(
    order: MigrateOutOrder,
    requestId: RequestId,
    migrationId: MigrationId,
    deadlineMs: number,
    mayRecompute = true,
  ): Promise<MigrationReport | null> {
    const { destination, isUrgent = false } = order;
    const outgoing = this.#config.engine.beginOutgoing(requestId);
    if (!outgoing) return null;
    const isRecomputed = mayRecompute && !outgoing.isWaiting && !outgoing.isHeld &&
      this.#crossover.recomputes(outgoing.lengthTokens, destination);
    const source = this.#source = new SourceSide(this.#sourceConfig, {
      ...{ migrationId, destination, outgoing, isRecomputed, isUrgent, deadlineMs },
      isBlocking: outgoing.isHeld,
    });
    const report = await source.run();
    this.#crossover.note(report, source.fastCopies, destination);
    // A destination where others wait takes no request that would wait, and may take one that runs.
    const isRefused = report.outcome === "aborted_destination" && report.phase === "opening";
    if (!isRecomputed || !isRefused) return report;
    return await this.#migrate(order, requestId, `${migrationId}+blocks`, deadlineMs, false);
  }

  #nothing({ migrationId, destination }: MigrateOutOrder, reason: string): MigrationReport {
    return {
      migrationId,
      sourceId: this.#config.instanceId,
      destinationId: destination.instanceId,
      requestId: null,
      outcome: "nothing",
      phase: "choice",
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

/** Ids of the migrations of one order: its own, then numbered ones. */
function nthId(migrationId: MigrationId, n: number): MigrationId {
  return n === 0 ? migrationId : `${migrationId}/${n}`;
}
