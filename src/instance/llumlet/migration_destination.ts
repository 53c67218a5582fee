import type { Peer } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import { OverloadedError, RequestError, UnavailableError } from "../../core/errors.ts";
import type { GenerateRequest, InstanceId } from "../../core/protocol/generate.ts";
import type {
  MigrateCommitRequest,
  MigrateInReply,
  MigrateInRequest,
  MigrateReserveReply,
  MigrateReserveRequest,
  MigrateSettleReply,
  MigrationId,
} from "../../core/protocol/migration.ts";
import { type KvLayout, layoutDifference } from "../../kv/layout.ts";
import type { MigrationBackend } from "../../kv/transfer/backend.ts";
import type { IncomingMigration, IncomingRequest } from "../engine/incoming_migration.ts";
import { MigrationMemory } from "./migration_memory.ts";
import type { MigrationTimeouts } from "./timeouts.ts";

/** Blocks whose memory is made ready ahead of a stage. More than a last stage has. */
const MAX_PREPARED_BLOCKS = 64;

export interface DestinationConfig {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
  readonly backend: MigrationBackend;
  readonly clock: Clock;
  readonly timeouts: MigrationTimeouts;
  /** What of an `Engine` is needed. */
  readonly engine: {
    beginIncoming(request: IncomingRequest): IncomingMigration;
    announce(requestId: string): void;
  };
  /** Another migration of this instance is under way. */
  readonly isBusy: () => boolean;
  /** A request is about to be this instance's: its outputs follow. */
  readonly onMovedIn: (request: GenerateRequest) => void;
}

/** A request on its way here. */
interface OpenMigration {
  readonly migrationId: MigrationId;
  readonly incoming: IncomingMigration;
  readonly peer: Peer;
  /** Answers by stage. */
  readonly stages: Promise<MigrateReserveReply>[];
  cancelLease: () => void;
}

/**
 * The destination's side of the migration protocol (behaviour page, section 4).
 *
 * What is reserved is granted to the migration, which alone may write it. When the source cancels or
 * falls silent, or its connection ends before the commit, the migration is over at once: its grant is
 * revoked, and as soon as nothing is written any more its blocks are free.
 */
export class DestinationSide {
  readonly #config: DestinationConfig;
  readonly #memory: MigrationMemory;
  /** The one that is under way. */
  #current: OpenMigration | null = null;

  constructor(config: DestinationConfig) {
    this.#config = config;
    this.#memory = new MigrationMemory(config.clock, config.timeouts.memoryMs);
  }

  get isBusy(): boolean {
    return this.#current !== null;
  }

  /** Call `migrate_in`. @throws {LlumnixError} the request may not come */
  open(request: MigrateInRequest, peer: Peer): MigrateInReply {
    const { migrationId } = request;
    const { backend, engine, instanceId } = this.#config;
    const { endpoint } = backend;
    if (this.#current?.migrationId === migrationId) return { endpoint };
    if (this.#memory.get(migrationId)) throw this.#isOver(migrationId);
    if (this.#config.isBusy()) throw new OverloadedError(`${instanceId} is migrating already`);
    if (!backend.isReady) throw new UnavailableError(`${backend.name} is not ready`);
    this.#refuseOtherKind(request);
    const incoming = engine.beginIncoming(request);
    const migration: OpenMigration = {
      migrationId,
      incoming,
      peer,
      stages: [],
      cancelLease: () => {},
    };
    this.#current = migration;
    this.#renewLease(migration);
    return { endpoint };
  }

  /** Call `migrate_reserve`. @throws {LlumnixError} too few blocks are free: the migration is over */
  reserve(
    { migrationId, stage, blocks, nextBlocks = 0 }: MigrateReserveRequest,
  ): Promise<MigrateReserveReply> {
    const migration = this.#find(migrationId);
    const answered = migration.stages[stage];
    if (answered) return answered;
    const what = `stage ${stage} of migration ${migrationId}`;
    const next = migration.stages.length;
    if (stage !== next) throw new RequestError(`${what} does not follow: stage ${next} is next`);
    checkCount(blocks, `${what}: blocks`);
    checkCount(nextBlocks, `${what}: nextBlocks`);
    this.#renewLease(migration);
    const reply = this.#takeBlocks(migration, blocks, nextBlocks);
    migration.stages.push(reply);
    return reply;
  }

  /** Call `migrate_commit`. @throws {LlumnixError} the request is not this instance's */
  commit({ migrationId, request }: MigrateCommitRequest): void {
    if (this.#memory.get(migrationId) === "committed") return;
    const migration = this.#find(migrationId);
    const { engine, onMovedIn } = this.#config;
    try {
      migration.incoming.adopt(request);
    } catch (error) {
      this.#giveUp(migration);
      throw error;
    }
    this.#end(migration, "committed");
    this.#config.backend.revoke(migrationId); // a source commits when everything is written
    onMovedIn(request);
    engine.announce(request.requestId);
  }

  /** Notification `migrate_cancel`: the source has given up. */
  cancel(migrationId: MigrationId): void {
    if (this.#current?.migrationId === migrationId) this.#giveUp(this.#current);
    else this.#memory.add(migrationId, "cancelled");
  }

  /** Call `migrate_settle`: a commit that was not answered has happened, or never will. */
  settle(migrationId: MigrationId): MigrateSettleReply {
    if (this.#memory.get(migrationId) !== "committed") this.cancel(migrationId);
    return { state: this.#memory.get(migrationId)! };
  }

  /** The connection to a source has ended. */
  closed(peer: Peer): void {
    if (this.#current?.peer === peer) this.#giveUp(this.#current);
  }

  async #takeBlocks(
    migration: OpenMigration,
    count: number,
    nextCount: number,
  ): Promise<MigrateReserveReply> {
    const { migrationId, incoming } = migration;
    const { backend, instanceId } = this.#config;
    const { promise, resolve, reject } = Promise.withResolvers<readonly number[]>();
    incoming.reserve(count, (blocks) => {
      if (this.#current !== migration) return reject(this.#isOver(migrationId));
      if (blocks) return resolve(backend.grant(migrationId, blocks).then(() => blocks));
      this.#giveUp(migration);
      reject(new OverloadedError(`${instanceId} has no room for ${count} blocks`));
    });
    const blocks = await promise;
    if (this.#current === migration) this.#renewLease(migration);
    if (nextCount > 0) backend.prepare?.(incoming.upcoming(nextCount, MAX_PREPARED_BLOCKS));
    return { blocks };
  }

  #find(migrationId: MigrationId): OpenMigration {
    if (this.#current?.migrationId === migrationId) return this.#current;
    throw this.#isOver(migrationId);
  }

  #isOver(migrationId: MigrationId): RequestError {
    const { instanceId } = this.#config;
    const ending = this.#memory.get(migrationId) ?? "not known";
    return new RequestError(`migration ${migrationId} is ${ending} on ${instanceId}`);
  }

  #refuseOtherKind({ model, layout, backend, sourceId }: MigrateInRequest): void {
    const { instanceId } = this.#config;
    if (backend !== this.#config.backend.name) {
      throw new RequestError(
        `${instanceId} moves requests by ${this.#config.backend.name}, and ${sourceId} by ${backend}`,
      );
    }
    if (model !== this.#config.model) {
      throw new RequestError(
        `${instanceId} serves ${this.#config.model}, and ${sourceId} serves ${model}`,
      );
    }
    const difference = layoutDifference(this.#config.layout, layout as unknown as KvLayout);
    if (difference === null) return;
    throw new RequestError(`KV caches of ${instanceId} and ${sourceId} differ: ${difference}`);
  }

  #renewLease(migration: OpenMigration): void {
    const { clock, timeouts } = this.#config;
    migration.cancelLease();
    migration.cancelLease = clock.after(timeouts.leaseMs, () => this.#giveUp(migration));
  }

  /** Frees what was reserved, as soon as nobody writes it. */
  async #giveUp(migration: OpenMigration): Promise<void> {
    this.#end(migration, "cancelled");
    await this.#config.backend.revoke(migration.migrationId);
    migration.incoming.cancel();
  }

  #end(migration: OpenMigration, ending: MigrateSettleReply["state"]): void {
    migration.cancelLease();
    if (this.#current === migration) this.#current = null;
    this.#memory.add(migration.migrationId, ending);
  }
}

/** @throws {RequestError} */
function checkCount(value: number, what: string): void {
  if (Number.isInteger(value) && value >= 0) return;
  throw new RequestError(`${what} is ${value}, and has to be a number of blocks, 0 or more`);
}
