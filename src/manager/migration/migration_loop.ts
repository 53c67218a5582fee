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
import type { ManagedInstance } from "../fleet/managed_instance.ts";
import { type PairMigrationOptions, pairMigrations } from "./pair_migration.ts";
import type { MigrationCandidate } from "./policy.ts";
import { roomBlocks } from "./policies/room.ts";

/** How long a source may take over a migration. Its own deadlines for each step are shorter. */
const MIGRATION_TIMEOUT_MS = 30_000;

/** Only instances that drain give requests away. */
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
    "loadMetric" | "pollingInterval" | "priorityHeadroomBlocks"
  >;
  readonly migration?: MigrationOptions;
  /** Those that serve, in the order in which they came. */
  readonly instances: () => readonly ManagedInstance[];
  /** Whether it can exchange blocks with the others of which this is true. */
  readonly mayExchange: (instance: ManagedInstance) => boolean;
  readonly onReport: (report: MigrationReport) => void;
  /** The source did not report: it does not answer in time, or its connection is lost. */
  readonly onUnanswered: (order: MigrateOutOrder, sourceId: InstanceId, reason: string) => void;
}

/**
 * Orders migrations, every `--pair-migration-frequency` updates of instance info, by the policies of
 * `migration/` on the latest reports.
 *
 * An instance takes part in one migration at a time, from the order until its report; where none
 * comes, until the time is over.
 */
export class MigrationLoop {
  readonly #config: MigrationLoopConfig;
  readonly #migration: MigrationOptions;
  readonly #pairOptions: PairMigrationOptions;
  readonly #periodMs: number;
  /** Ids of a manager that is started again must differ from those of the one before. */
  readonly #idPrefix: string;
  #numOrders = 0;
  /** Draining instances whose last order found no request of the kind that it asked for. */
  readonly #triedRunning = new Set<InstanceId>();
  #cancel: (() => void) | null = null;
  #isHurrying = false;
  #isStopped = false;

  constructor(config: MigrationLoopConfig) {
    const { clock, options, migration = noMigration } = config;
    this.#config = config;
    this.#migration = migration;
    this.#pairOptions = { loadMetric: options.loadMetric, ...migration };
    this.#periodMs = options.pollingInterval * 1000 * migration.pairMigrationFrequency;
    this.#idPrefix = Math.floor(clock.nowMs()).toString(36);
  }

  start(): void {
    this.#cancel = this.#config.clock.after(this.#periodMs, () => {
      this.start();
      this.#orderMigrations();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#isStopped = true;
  }

  /** Requests wait to leave a prefill instance: their orders do not wait for the next round. */
  hurry(): void {
    if (this.#isHurrying) return;
    this.#isHurrying = true;
    this.#config.clock.soon(() => {
      this.#isHurrying = false;
      if (!this.#isStopped) this.#orderMigrations((source) => source.type === "prefill");
    });
  }

  /**
   * Moves one request, by hand.
   * @throws {LlumnixError} the source does not report
   */
  migrateRequest(
    source: ManagedInstance,
    destination: ManagedInstance,
    requestId: RequestId,
  ): Promise<MigrationReport> {
    return this.#order(source, destination, { policy: "SR", requestId });
  }

  /** @param isWanted the sources that are to give */
  #orderMigrations(isWanted: (source: ManagedInstance) => boolean = () => true): void {
    const instances = this.#config.instances();
    const isNeeded = this.#migration.enableMigration || instances.some((one) => one.isDraining);
    if (!isNeeded) return;
    const candidates: MigrationCandidate[] = [];
    for (const instance of instances) {
      const candidate = this.#candidateOf(instance);
      if (candidate !== null) candidates.push(candidate);
    }
    const pairs = pairMigrations(candidates, this.#pairOptions);
    if (pairs.length === 0) return; // as mostly
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
    // An order that finds nothing would keep its destination from others.
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
      isMigrating: instance.migrationId !== null,
      isBackendReady: registration.migration !== undefined &&
        this.#config.mayExchange(instance),
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
      // The order was not answered, and that was told.
    }
  }

  async #order(
    source: ManagedInstance,
    destination: ManagedInstance,
    what: Pick<MigrateOutOrder, "policy" | "maxRequests" | "aim" | "requestId">,
  ): Promise<MigrationReport> {
    const { instanceId, address } = destination.registration!;
    const migrationId: MigrationId = `${this.#idPrefix}-${++this.#numOrders}`;
    const order: MigrateOutOrder = {
      migrationId,
      destination: { instanceId, address },
      room: this.#roomOf(destination),
      isUrgent: source.isDraining || source.hasQueue,
      ...what,
    };
    source.migrationId = destination.migrationId = migrationId;
    try {
      const options = { timeoutMs: MIGRATION_TIMEOUT_MS };
      const { data: report } = await source.peer!.call("migrate_out", { data: order }, options);
      this.#take(report, source, destination);
      return report;
    } catch (error) {
      this.#config.onUnanswered(order, source.instanceId, toErrorRecord(error).message);
      throw error;
    } finally {
      source.migrationId = destination.migrationId = null;
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

  #take(report: MigrationReport, source: ManagedInstance, destination: ManagedInstance): void {
    const reports = [...report.earlier ?? [], { ...report, earlier: undefined }];
    for (const one of reports) this.#config.onReport(one);
    if (source.type !== "prefill") return;
    // The next destination is chosen before the reports of these instances have come.
    const committed = reports.filter(({ outcome }) => outcome === "committed");
    source.noteMoved(committed, destination);
    if (committed.length > 0 && source.info!.leavingRequests > 0) this.hurry();
  }

  /** What runs leaves first, for it needs the most; then what waits, which may have to be tried. */
  #drainPolicy({ instanceId, info }: ManagedInstance): RequestMigrationPolicy {
    const mayRun = info!.runningRequests > 0 && !this.#triedRunning.has(instanceId);
    return mayRun ? "SR" : "FCW";
  }

  /** The next order asks for the other kind. */
  #noteNothing({ instanceId }: ManagedInstance, policy: RequestMigrationPolicy): void {
    if (policy === "SR") this.#triedRunning.add(instanceId);
    else this.#triedRunning.delete(instanceId);
  }
}

/**
 * How many of the requests that wait to leave a prefill instance one decode instance gets, so that
 * those of one step spread over all. Undefined for other sources.
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
