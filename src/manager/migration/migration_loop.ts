import type { Clock } from "../../core/clock.ts";
import { toErrorRecord } from "../../core/errors.ts";
import type { InstanceId, RequestId } from "../../core/protocol/generate.ts";
import type {
  DestinationRoom,
  MigrateOutOrder,
  MigrationId,
  MigrationReport,
  RequestMigrationPolicy,
} from "../../core/protocol/migration.ts";
import type { ManagerOptions, MigrationOptions } from "../../core/options.ts";
import { loadStateOf } from "../load/load_state.ts";
import type { Authority } from "../authority.ts";
import type { ManagedInstance } from "../fleet/managed_instance.ts";
import { type PairMigrationOptions, pairMigrations } from "./pair_migration.ts";
import type { MigrationCandidate } from "./policy.ts";
import { roomBlocks } from "./policies/room.ts";

/** Time limit for a source's report on a migration. Its own deadlines for each step are shorter. */
const MIGRATION_TIMEOUT_MS = 30_000;

/** Options without migration: only draining instances give requests away. */
export const noMigration: MigrationOptions = {
  enableMigration: false,
  pairMigrationFrequency: 1,
  pairMigrationPolicy: "balanced",
  migrateOutThreshold: 3,
  requestMigrationPolicy: "SR",
  enableDefrag: false,
  enablePdDisagg: false,
};

export interface MigrationLoopConfig {
  readonly clock: Clock;
  readonly options: Pick<
    ManagerOptions,
    "loadMetric" | "priorityHeadroomBlocks"
  >;
  readonly migration?: MigrationOptions;
  /** How often instances report: between two reports nothing new can be decided. */
  readonly reportIntervalMs: () => number;
  readonly authority: Authority;
  /** The serving instances, in the order in which they came. */
  readonly instances: () => readonly ManagedInstance[];
  /** Whether an operator drains the host of an instance. */
  readonly isHostDrained: (instance: ManagedInstance) => boolean;
  /** Whether an instance can exchange blocks with all other instances for which this is true. */
  readonly canMigrate: (instance: ManagedInstance) => boolean;
  readonly onOrder: (migration: OrderedMigration) => void;
  readonly onReport: (report: MigrationReport, migration: OrderedMigration) => void;
  /** The source did not report in time, or its connection was lost. */
  readonly onUnanswered: (migration: OrderedMigration, reason: string) => void;
}

/** A migration that was ordered, and has not ended. */
export interface OrderedMigration {
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  readonly destinationId: InstanceId;
  readonly backend: string;
}

/**
 * Orders migrations, every `--pair-migration-frequency` updates of instance info, according to the
 * pairing policy and the latest reports (src/manager/README.md, "Pair migration").
 *
 * An instance takes part in one migration at a time: from the order until the source's report, or,
 * without a report, until the time limit.
 */
export class MigrationLoop {
  readonly #config: MigrationLoopConfig;
  readonly #migration: MigrationOptions;
  readonly #pairOptions: PairMigrationOptions;
  /** Makes the ids of a restarted manager differ from its predecessor's. */
  readonly #idPrefix: string;
  #numOrders = 0;
  /** Draining instances whose last order for a running request found none that could move. */
  readonly #triedRunning = new Set<InstanceId>();
  #cancel: (() => void) | null = null;
  #isHurrying = false;
  #isStopped = false;

  constructor(config: MigrationLoopConfig) {
    const { clock, options, migration = noMigration } = config;
    this.#config = config;
    this.#migration = migration;
    this.#pairOptions = { loadMetric: options.loadMetric, ...migration };
    this.#idPrefix = Math.floor(clock.nowMs()).toString(36);
  }

  start(): void {
    const periodMs = this.#config.reportIntervalMs() * this.#migration.pairMigrationFrequency;
    this.#cancel = this.#config.clock.after(periodMs, () => {
      this.start();
      this.#orderMigrations();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#isStopped = true;
  }

  /** Requests wait to move from prefill to decode: orders them now instead of at the next round. */
  hurry(): void {
    if (this.#isHurrying) return;
    this.#isHurrying = true;
    this.#config.clock.soon(() => {
      this.#isHurrying = false;
      if (!this.#isStopped) this.#orderMigrations((source) => source.type === "prefill");
    });
  }

  /**
   * Moves one request, as an operator asked.
   * @throws {LlumnixError} the source did not report
   */
  migrateRequest(
    source: ManagedInstance,
    destination: ManagedInstance,
    requestId: RequestId,
  ): Promise<MigrationReport> {
    return this.#order(source, destination, { policy: "SR", requestId });
  }

  /** @param isWanted which sources get orders */
  #orderMigrations(isWanted: (source: ManagedInstance) => boolean = () => true): void {
    if (this.#config.authority.stamp === null) return;
    const instances = this.#config.instances();
    const isNeeded = this.#migration.enableMigration || instances.some((one) => one.isDraining);
    if (!isNeeded) return;
    const candidates: MigrationCandidate[] = [];
    for (const instance of instances) {
      const candidate = this.#candidateOf(instance);
      if (candidate !== null) candidates.push(candidate);
    }
    const pairs = pairMigrations(candidates, this.#pairOptions);
    if (pairs.length === 0) return; // the usual case
    const byId = new Map(instances.map((instance) => [instance.instanceId, instance]));
    for (const pair of pairs) {
      const source = byId.get(pair.source)!, destination = byId.get(pair.destination)!;
      if (source.isEmpty || !(this.#migration.enableMigration || source.isDraining)) continue;
      if (!isWanted(source)) continue;
      this.#migrate(source, destination, {
        maxRequests: shareOf(source, instances),
        aim: pair.aim,
        requestId: pair.requestId,
      });
    }
  }

  #candidateOf(instance: ManagedInstance): MigrationCandidate | null {
    const { registration, info, isDraining, type, peer, failure } = instance;
    if (registration === null || info === null || peer === null || failure !== null) return null;
    // An order that finds no request would occupy its destination for nothing.
    if (type === "prefill" && info.leavingRequests === 0 && !isDraining) return null;
    const { priorityHeadroomBlocks } = this.#config.options;
    return {
      instanceId: instance.instanceId,
      instanceType: registration.instanceType,
      state: loadStateOf(info, { priorityHeadroomBlocks, isDraining }),
      killedRequests: info.killedRequests,
      lastRunningBlocks: info.lastRunningBlocks,
      firstWaitingMs: info.firstWaitingMs,
      waiting: info.waiting,
      runningSequenceLengths: info.runningSequenceLengths,
      blockSize: registration.blockSize,
      hostName: instance.hostName,
      isHostDrained: this.#config.isHostDrained(instance),
      isMigrating: instance.migrationId !== null,
      isBackendReady: registration.migration !== undefined &&
        this.#config.canMigrate(instance),
    };
  }

  async #migrate(
    source: ManagedInstance,
    destination: ManagedInstance,
    terms: Pick<MigrateOutOrder, "maxRequests" | "aim" | "requestId">,
  ): Promise<void> {
    const policy = source.isDraining
      ? this.#drainPolicy(source)
      : this.#migration.requestMigrationPolicy;
    try {
      const { outcome } = await this.#order(source, destination, { policy, ...terms });
      if (outcome === "nothing") this.#noteNothing(source, policy);
    } catch {
      // `onUnanswered` was told.
    }
  }

  async #order(
    source: ManagedInstance,
    destination: ManagedInstance,
    what: Pick<MigrateOutOrder, "policy" | "maxRequests" | "aim" | "requestId">,
  ): Promise<MigrationReport> {
    const decision = this.#config.authority.demand();
    const { instanceId, address } = destination.registration!;
    const migrationId: MigrationId = `${this.#idPrefix}-${++this.#numOrders}`;
    const order: MigrateOutOrder = {
      ...decision,
      migrationId,
      destination: { instanceId, address, hostName: otherHost(source, destination) },
      room: this.#roomOf(destination),
      isUrgent: source.isDraining || source.hasQueue,
      ...what,
    };
    const migration: OrderedMigration = {
      migrationId,
      sourceId: source.instanceId,
      destinationId: instanceId,
      backend: source.registration!.migration!.backend,
    };
    for (const one of [source, destination]) one.beginMigration(migrationId);
    this.#config.onOrder(migration);
    try {
      const options = { timeoutMs: MIGRATION_TIMEOUT_MS };
      const { data: report } = await source.peer!.call("migrate_out", { data: order }, options);
      this.#take(report, migration, source, destination);
      return report;
    } catch (error) {
      this.#config.onUnanswered(migration, toErrorRecord(error).message);
      throw error;
    } finally {
      for (const one of [source, destination]) one.endMigration();
    }
  }

  #roomOf({ info }: ManagedInstance): DestinationRoom | undefined {
    if (info === null) return undefined;
    const { loadMetric, migrateOutThreshold } = this.#pairOptions;
    const blocks = Math.max(0, roomBlocks(loadStateOf(info), loadMetric, migrateOutThreshold));
    const firstArrivalMs = info.waitingRequests === 0
      ? null
      : info.timestampMs - info.firstWaitingMs;
    return { blocks, firstArrivalMs };
  }

  #take(
    report: MigrationReport,
    migration: OrderedMigration,
    source: ManagedInstance,
    destination: ManagedInstance,
  ): void {
    const reports = [...report.earlier ?? [], { ...report, earlier: undefined }];
    for (const one of reports) this.#config.onReport(one, migration);
    if (source.type !== "prefill") return;
    // The next destination is chosen before these instances report again.
    const committed = reports.filter(({ outcome }) => outcome === "committed");
    source.noteMoved(committed, destination);
    if (committed.length > 0 && source.info!.leavingRequests > 0) this.hurry();
  }

  /**
   * Running requests move first, since they hold the most blocks; then waiting ones. The source may
   * have to schedule a waiting request once before that request can move.
   */
  #drainPolicy({ instanceId, info }: ManagedInstance): RequestMigrationPolicy {
    const mayRun = info!.runningRequests > 0 && !this.#triedRunning.has(instanceId);
    return mayRun ? "SR" : "FCW";
  }

  /** The next order asks for the other kind of request. */
  #noteNothing({ instanceId }: ManagedInstance, policy: RequestMigrationPolicy): void {
    if (policy === "SR") this.#triedRunning.add(instanceId);
    else this.#triedRunning.delete(instanceId);
  }
}

/** The destination's host, if a request would leave the source's host. */
function otherHost(source: ManagedInstance, destination: ManagedInstance): string | undefined {
  if (source.hostName === null || source.hostName === destination.hostName) return undefined;
  return destination.hostName ?? undefined;
}

/**
 * How many requests of a prefill instance one decode instance gets, so that the requests of one step
 * spread over all decode instances. Undefined for other sources.
 */
function shareOf(
  { type, info }: ManagedInstance,
  instances: readonly ManagedInstance[],
): number | undefined {
  if (type !== "prefill" || info === null) return undefined;
  const numDestinations =
    instances.filter((one) => one.type === "decode" && one.isAvailable).length;
  return Math.max(1, Math.ceil(info.leavingRequests / Math.max(1, numDestinations)));
}
