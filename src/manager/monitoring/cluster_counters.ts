import type {
  BackendMoves,
  ClusterEvent,
  ClusterStatistics,
  MigrationCount,
  MigrationEnded,
} from "../../core/protocol/monitoring.ts";
import { BucketCounts } from "../../core/stats/bucket_counts.ts";

/** Seconds. A dispatch decision takes some microseconds for each instance. */
const DECISION_BOUNDS = [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 0.01];
/** Seconds. Downtimes of the paper are 20 to 30 ms; a large request over a slow network takes more. */
const DOWNTIME_BOUNDS = [1e-3, 2.5e-3, 5e-3, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 5];
/** Seconds. */
const MIGRATION_BOUNDS = [5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Bytes per second: from a slow network to NVLink. */
const SPEED_BOUNDS = [0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500].map((n) =>
  n * 1e9
);

type Counters<T> = { -readonly [Name in keyof T]: T[Name] };

/**
 * A cluster has one backend, or two while it is upgraded. Instances name theirs: of more, the later ones
 * count as `other`.
 */
const MAX_BACKENDS = 16;

class Moves implements BackendMoves {
  tokens = 0;
  blocks = 0;
  bytes = 0;
  transferSeconds = 0;
  readonly downtimeSeconds = new BucketCounts(DOWNTIME_BOUNDS);
  readonly totalSeconds = new BucketCounts(MIGRATION_BOUNDS);
  readonly bytesPerSecond = new BucketCounts(SPEED_BOUNDS);

  constructor(readonly backend: string) {}

  add(event: MigrationEnded): void {
    this.tokens += event.lengthTokens;
    this.blocks += event.blocks;
    this.bytes += event.bytes;
    this.transferSeconds += event.transferMs / 1000;
    this.downtimeSeconds.add(event.downtimeMs / 1000);
    this.totalSeconds.add(event.totalMs / 1000);
    if (event.transferMs > 0) this.bytesPerSecond.add(1000 * event.bytes / event.transferMs);
  }

  snapshot(): BackendMoves {
    const { backend, tokens, blocks, bytes, transferSeconds } = this;
    return {
      backend,
      tokens,
      blocks,
      bytes,
      transferSeconds,
      downtimeSeconds: this.downtimeSeconds.snapshot(),
      totalSeconds: this.totalSeconds.snapshot(),
      bytesPerSecond: this.bytesPerSecond.snapshot(),
    };
  }
}

/** Counts the events of a manager. */
export class ClusterCounters {
  readonly dispatches = { placed: 0, refused: 0 };
  readonly dispatchSeconds = new BucketCounts(DECISION_BOUNDS);
  readonly #migrations = new Map<string, Counters<MigrationCount>>();
  readonly #moves = new Map<string, Moves>();
  readonly #backends = new Set<string>();
  readonly #scaling = { up: 0, down: 0 };
  readonly #instances = { started: 0, stopped: 0, lost: 0, startFailed: 0 };
  #resumedRequests = 0;

  count(event: ClusterEvent): void {
    switch (event.type) {
      case "migration_ended":
        return this.#countMigration(event);
      case "resumed":
        this.#resumedRequests++;
        return;
      case "scaled":
        if (event.change > 0) this.#scaling.up += event.change;
        else this.#scaling.down -= event.change;
        return;
      case "instance_starting":
        this.#instances.started++;
        return;
      case "instance_stopped":
        this.#instances.stopped++;
        return;
      case "instance_lost":
        this.#instances.lost++;
        return;
      case "start_failed":
        this.#instances.startFailed++;
        return;
    }
  }

  snapshot(): ClusterStatistics {
    return {
      dispatches: { ...this.dispatches },
      dispatchSeconds: this.dispatchSeconds.snapshot(),
      migrations: [...this.#migrations.values()].map((one) => ({ ...one })),
      moves: [...this.#moves.values()].map((one) => one.snapshot()),
      scaling: { ...this.#scaling },
      instances: { ...this.#instances },
      resumedRequests: this.#resumedRequests,
    };
  }

  #nameOf(backend: string): string {
    if (this.#backends.size < MAX_BACKENDS) this.#backends.add(backend);
    return this.#backends.has(backend) ? backend : "other";
  }

  #countMigration(event: MigrationEnded): void {
    const { outcome, phase } = event;
    const backend = this.#nameOf(event.backend);
    const key = `${backend} ${outcome} ${phase}`;
    const row = this.#migrations.get(key);
    if (row) row.count++;
    else this.#migrations.set(key, { backend, outcome, phase, count: 1 });
    if (outcome !== "committed") return;
    let moves = this.#moves.get(backend);
    if (!moves) this.#moves.set(backend, moves = new Moves(backend));
    moves.add(event);
  }
}
