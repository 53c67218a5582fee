import { type Distribution, distributionOf } from "../../core/stats/distribution.ts";
import type { MigrationReport } from "../../core/protocol/migration.ts";
import type { ManagerEvent } from "../../manager/manager_event.ts";

/** Migrations of a run. */
export interface MigrationSummary {
  readonly committed: number;
  /** Migrations that ended without moving a request, for any reason. */
  readonly aborted: number;
  /** Downtime of the requests that ran when they moved. */
  readonly downtimeMs: Distribution;
  readonly stages: number;
  readonly bytes: number;
  /** Duration of all migrations together, in seconds. */
  readonly seconds: number;
  /** How many migrations failed for each reason. */
  readonly reasons: Readonly<Record<string, number>>;
}

/** Takes the manager's reports of migrations. */
export class MigrationRecorder {
  readonly #downtimeMs: number[] = [];
  readonly #reasons = new Map<string, number>();
  #committed = 0;
  #aborted = 0;
  #stages = 0;
  #bytes = 0;
  #totalMs = 0;

  take(event: ManagerEvent): void {
    if (event.type === "migrated") {
      this.#report(event.report);
    } else if (event.type === "migration_unanswered") this.#abort(event.reason);
  }

  summary(): MigrationSummary {
    return {
      committed: this.#committed,
      aborted: this.#aborted,
      downtimeMs: distributionOf(this.#downtimeMs),
      stages: this.#stages,
      bytes: this.#bytes,
      seconds: this.#totalMs / 1000,
      reasons: Object.fromEntries([...this.#reasons].sort((a, b) => b[1] - a[1])),
    };
  }

  #report({ outcome, reason, downtimeMs, stages, transfer, totalMs, blocks }: MigrationReport) {
    this.#totalMs += totalMs;
    if (outcome !== "committed") return this.#abort(`${outcome}: ${reason}`);
    this.#committed++;
    this.#stages += stages;
    this.#bytes += transfer.bytes;
    if (blocks > 0) this.#downtimeMs.push(downtimeMs);
  }

  #abort(reason: string): void {
    this.#aborted++;
    // Without names and numbers, so that equal reasons count together.
    const kind = reason.replace(/instance-\d+/g, "an instance").replace(/\b\d+\b/g, "n");
    this.#reasons.set(kind, (this.#reasons.get(kind) ?? 0) + 1);
  }
}
