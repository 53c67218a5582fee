import type { MigrationOutcome, MigrationReport } from "../core/protocol/migration.ts";
import type { ManagerEvent } from "./manager_event.ts";

/** What a manager has done since it was started. */
export interface ManagerStatistics {
  readonly dispatches: number;
  /** By outcome; `unanswered`: the source did not report. */
  readonly migrations: Readonly<Record<MigrationOutcome | "unanswered", number>>;
  /** This and the next four are of committed migrations. */
  readonly migratedTokens: number;
  readonly migratedBlocks: number;
  readonly transferredBytes: number;
  readonly downtimeSumMs: number;
  readonly downtimeMaxMs: number;
  readonly launchedInstances: number;
  readonly stoppedInstances: number;
  readonly lostInstances: number;
}

type Counters = { -readonly [Name in keyof ManagerStatistics]: ManagerStatistics[Name] };

/** Counts for {@linkcode ManagerStatistics}. */
export class StatisticsCounter {
  readonly #migrations = {
    committed: 0,
    nothing: 0,
    finished: 0,
    aborted_source: 0,
    aborted_destination: 0,
    unanswered: 0,
  };
  readonly counters: Counters = {
    dispatches: 0,
    migrations: this.#migrations,
    migratedTokens: 0,
    migratedBlocks: 0,
    transferredBytes: 0,
    downtimeSumMs: 0,
    downtimeMaxMs: 0,
    launchedInstances: 0,
    stoppedInstances: 0,
    lostInstances: 0,
  };

  snapshot(): ManagerStatistics {
    return { ...this.counters, migrations: { ...this.#migrations } };
  }

  noteMigration({ earlier = [], ...report }: MigrationReport): void {
    for (const before of earlier) this.noteMigration(before);
    const { outcome, lengthTokens, blocks, transfer, downtimeMs } = report;
    this.#migrations[outcome]++;
    if (outcome !== "committed") return;
    const { counters } = this;
    counters.migratedTokens += lengthTokens;
    counters.migratedBlocks += blocks;
    counters.transferredBytes += transfer.bytes;
    counters.downtimeSumMs += downtimeMs;
    counters.downtimeMaxMs = Math.max(counters.downtimeMaxMs, downtimeMs);
  }

  noteEvent({ type }: ManagerEvent): void {
    if (type === "launched") this.counters.launchedInstances++;
    else if (type === "stopped") this.counters.stoppedInstances++;
    else if (type === "lost") this.counters.lostInstances++;
  }

  noteUnanswered(): void {
    this.#migrations.unanswered++;
  }
}
