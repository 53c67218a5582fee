import { type Clock, sleep } from "../../core/clock.ts";
import type { ClusterMonitor } from "../../core/cluster.ts";
import type { RequestId } from "../../core/protocol/generate.ts";
import type { EventsQuery } from "../../core/protocol/monitoring.ts";
import type { RequestRecord } from "../request_record.ts";
import type { SpanExporter } from "./span_exporter.ts";
import { partsOf, requestSpan, type TimedMigration } from "./spans.ts";
import { parseTraceparent } from "./traceparent.ts";

/** How often migrations are asked for. A request's spans follow its end by up to twice as long. */
const POLL_MS = 1_000;
/** Requests that wait for their migrations; of more, the oldest go without. */
const MAX_WAITING = 4_096;
/** Requests whose migrations are remembered; of more, the oldest are forgotten. */
const MAX_MOVED = 4_096;
/** Of one request. */
const MAX_MIGRATIONS = 64;
/** Time to send the last spans before the process ends. */
const CLOSE_MS = 3_000;

export interface RequestTracerConfig {
  readonly exporter: Pick<SpanExporter, "write" | "close">;
  /** Knows of migrations. */
  readonly monitor: ClusterMonitor;
  readonly clock: Clock;
  /** The model's name for clients. */
  readonly model: string;
}

/**
 * Makes spans of requests after their end. The manager knows of their migrations, so a request waits
 * until the manager has been asked once more.
 */
export class RequestTracer {
  readonly #config: RequestTracerConfig;
  /** Ended before the last poll, and since. */
  #older: RequestRecord[] = [];
  #newer: RequestRecord[] = [];
  readonly #migrations = new Map<RequestId, TimedMigration[]>();
  #query: EventsQuery = { after: null };
  #cancel: () => void;
  #isClosed = false;

  constructor(config: RequestTracerConfig) {
    this.#config = config;
    this.#cancel = config.clock.after(0, () => this.#poll());
  }

  /** A request has ended. */
  take(record: RequestRecord): void {
    if (this.#isClosed) return;
    this.#newer.push(record);
    if (this.#newer.length > MAX_WAITING) this.#write(this.#newer.splice(0, 1));
  }

  /** Sends the spans that are left, within some seconds. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancel();
    const { clock, exporter } = this.#config;
    const sent = (async () => {
      await this.#readMigrations();
      this.#write([...this.#older, ...this.#newer]);
      await exporter.close();
    })();
    await Promise.race([sent.catch(() => {}), sleep(clock, CLOSE_MS)]);
  }

  async #poll(): Promise<void> {
    await this.#readMigrations();
    if (this.#isClosed) return;
    this.#write(this.#older);
    this.#older = this.#newer;
    this.#newer = [];
    this.#cancel = this.#config.clock.after(POLL_MS, () => this.#poll());
  }

  /** Without a manager there are no migrations. */
  async #readMigrations(): Promise<void> {
    try {
      for (let hasMore = true; hasMore;) {
        const reply = await this.#config.monitor.events(this.#query);
        this.#query = { after: reply.next, managerStartedMs: reply.managerStartedMs };
        hasMore = reply.hasMore;
        for (const event of reply.events) {
          if (event.type === "migration_ended") this.#remember(event);
        }
      }
    } catch {
      // The next poll asks again.
    }
  }

  #remember(migration: TimedMigration): void {
    const { requestId } = migration;
    if (requestId === null) return;
    const known = this.#migrations.get(requestId) ?? [];
    if (known.length < MAX_MIGRATIONS) known.push(migration);
    this.#migrations.set(requestId, known);
    if (this.#migrations.size > MAX_MOVED) {
      this.#migrations.delete(this.#migrations.keys().next().value!);
    }
  }

  #write(records: readonly RequestRecord[]): void {
    const { exporter, model } = this.#config;
    for (const record of records) {
      const { requestId, origin: { traceparent } } = record;
      const migrations = this.#migrations.get(requestId) ?? [];
      this.#migrations.delete(requestId);
      const parent = traceparent === null ? null : parseTraceparent(traceparent);
      exporter.write(parent, requestSpan(record, model), partsOf(record, migrations));
    }
  }
}
