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

/** Most blocks whose memory is prepared ahead of a stage. More than a last stage has. */
const MAX_PREPARED_BLOCKS = 64;

export interface DestinationConfig {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
  readonly backend: MigrationBackend;
  readonly clock: Clock;
  readonly timeouts: MigrationTimeouts;
  /** The part of an `Engine` that takes requests in. */
  readonly engine: {
    beginIncoming(request: IncomingRequest): IncomingMigration;
    announce(requestId: string): void;
  };
  /** This instance takes part in another migration. */
  readonly isBusy: () => boolean;
  /** A request has moved here; called before its first output. */
  readonly onMovedIn: (request: GenerateRequest) => void;
}

/** A migration to here that is under way. */
interface OpenMigration {
  readonly migrationId: MigrationId;
  readonly incoming: IncomingMigration;
  readonly peer: Peer;
  /** The answer to each stage, for repeated calls. */
  readonly stages: Promise<MigrateReserveReply>[];
  cancelLease: () => void;
}

/**
 * The destination's side of live migration (see "One migration" in README.md).
 *
 * Reserved blocks are granted to the migration: only its source may write them. The migration is
 * over if the source cancels it, does not call for the time of the lease, or loses its connection
 * before the commit. Then the grant is revoked, and the blocks are freed once no transfer can write
 * them any more.
 */
export class DestinationSide {
  readonly #config: DestinationConfig;
  readonly #memory: MigrationMemory;
  /** The migration under way: at most one. */
  #current: OpenMigration | null = null;

  constructor(config: DestinationConfig) {
    this.#config = config;
    this.#memory = new MigrationMemory(config.clock, config.timeouts.memoryMs);
  }

  get isBusy(): boolean {
    return this.#current !== null;
  }

  /** Call `migrate_in`. @throws {LlumnixError} the request cannot move here */
  open(request: MigrateInRequest, peer: Peer): MigrateInReply {
    const { migrationId } = request;
    const { backend, engine, instanceId } = this.#config;
    const { endpoint } = backend;
    if (this.#current?.migrationId === migrationId) return { endpoint };
    if (this.#memory.get(migrationId)) throw this.#isOver(migrationId);
    if (this.#config.isBusy()) {
      throw new OverloadedError(`${instanceId} takes part in another migration`);
    }
    if (!backend.isReady) {
      throw new UnavailableError(`migration backend ${backend.name} of ${instanceId} is not ready`);
    }
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

  /** Call `migrate_reserve`. @throws {LlumnixError} too few free blocks; the migration is over */
  reserve(
    { migrationId, stage, blocks, nextBlocks = 0 }: MigrateReserveRequest,
  ): Promise<MigrateReserveReply> {
    const migration = this.#find(migrationId);
    const answered = migration.stages[stage];
    if (answered) return answered;
    const what = `stage ${stage} of migration ${migrationId}`;
    const next = migration.stages.length;
    if (stage !== next) throw new RequestError(`${what}: expected stage ${next}`);
    checkCount(blocks, `${what}: blocks`);
    checkCount(nextBlocks, `${what}: nextBlocks`);
    this.#renewLease(migration);
    const reply = this.#takeBlocks(migration, blocks, nextBlocks);
    migration.stages.push(reply);
    return reply;
  }

  /** Call `migrate_commit`. @throws {LlumnixError} this instance does not own the request */
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
    this.#config.backend.revoke(migrationId); // the source has written all blocks before it commits
    onMovedIn(request);
    engine.announce(request.requestId);
  }

  /** Notification `migrate_cancel`: the source gives the migration up. */
  cancel(migrationId: MigrationId): void {
    if (this.#current?.migrationId === migrationId) this.#giveUp(this.#current);
    else this.#memory.add(migrationId, "cancelled");
  }

  /** Call `migrate_settle`: says whether the commit happened. If it did not, it never will. */
  settle(migrationId: MigrationId): MigrateSettleReply {
    if (this.#memory.get(migrationId) !== "committed") this.cancel(migrationId);
    return { state: this.#memory.get(migrationId)! };
  }

  /** A connection to this instance has ended. */
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
        `${instanceId} has migration backend ${this.#config.backend.name}, and ${sourceId} ${backend}`,
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

  /** Ends the migration and frees its blocks, once no transfer can write them any more. */
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

/** @throws {RequestError} `value` is no count of blocks */
function checkCount(value: number, what: string): void {
  if (Number.isInteger(value) && value >= 0) return;
  throw new RequestError(`${what} is ${value}: expected a whole number of blocks, 0 or more`);
}
