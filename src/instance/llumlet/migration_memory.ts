import type { Clock } from "../../core/clock.ts";
import type { MigrateSettleReply, MigrationId } from "../../core/protocol/migration.ts";

type Ending = MigrateSettleReply["state"];

/** More migrations than end within the time in which a source asks about one. */
const MAX_ENTRIES = 4096;

/** Remembers how the latest migrations to an instance ended. */
export class MigrationMemory {
  readonly #clock: Clock;
  readonly #memoryMs: number;
  /** Oldest ending first. */
  readonly #endings = new Map<MigrationId, { readonly ending: Ending; readonly atMs: number }>();

  constructor(clock: Clock, memoryMs: number) {
    this.#clock = clock;
    this.#memoryMs = memoryMs;
  }

  /** Null if the migration has not ended, or ended too long ago. */
  get(migrationId: MigrationId): Ending | null {
    return this.#endings.get(migrationId)?.ending ?? null;
  }

  /** Notes how a migration ended. Only its first ending counts. */
  add(migrationId: MigrationId, ending: Ending): void {
    if (this.#endings.has(migrationId)) return;
    const nowMs = this.#clock.nowMs();
    this.#endings.set(migrationId, { ending, atMs: nowMs });
    for (const [id, { atMs }] of this.#endings) {
      if (this.#endings.size <= MAX_ENTRIES && nowMs - atMs < this.#memoryMs) break;
      this.#endings.delete(id);
    }
  }
}
