import type { Clock } from "../../core/clock.ts";
import type { MigrateCommitRequest, MigrationId } from "../../core/protocol/migration.ts";
import type { SimInstance } from "./sim_instance.ts";

/** Checks that a commit hands its request over once, even if it arrives several times. */
export class CommitWatch {
  readonly #arrived = new Set<MigrationId>();

  constructor(
    private readonly clock: Clock,
    private readonly violate: (what: string) => void,
  ) {}

  /** A commit reaches its destination, which handles it after this. */
  noteCommit(
    { migrationId, request }: MigrateCommitRequest,
    { name, instance }: SimInstance,
  ): void {
    if (!this.#arrived.has(migrationId)) {
      this.#arrived.add(migrationId);
      return;
    }
    const { requestId, epoch } = request;
    const isOwned = () => instance.engine?.epochOf(requestId) === epoch;
    if (isOwned()) return;
    this.clock.soon(() => {
      if (isOwned()) this.violate(`${name} takes ${requestId} over twice in ${migrationId}`);
    });
  }
}
