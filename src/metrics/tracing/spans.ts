import type { MigrationEnded } from "../../core/protocol/monitoring.ts";
import { queueMs, type RequestRecord, ttftMs } from "../request_record.ts";

/** A span before it has ids. Times are milliseconds since the epoch. */
export interface PlannedSpan {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, string | number | readonly string[] | undefined>>;
  /** Set if what it stands for failed. */
  readonly error?: string;
}

/** A migration that ended, by the manager's clock. */
export type TimedMigration = MigrationEnded & { readonly atMs: number };

/**
 * The span of a request. Names are OpenTelemetry's for generative AI (gen_ai.*), latencies are vLLM's.
 * Neither prompt nor output is in it.
 */
export function requestSpan(record: RequestRecord, model: string): PlannedSpan {
  const { origin, sampling, arrivalMs, endMs, outcome, errorKind } = record;
  return {
    name: `${origin.operation} ${model}`,
    startMs: arrivalMs,
    endMs,
    attributes: {
      "gen_ai.operation.name": origin.operation,
      "gen_ai.provider.name": "llumnix",
      "gen_ai.request.model": model,
      "gen_ai.request.max_tokens": sampling.maxTokens ?? undefined,
      "gen_ai.request.temperature": sampling.temperature,
      "gen_ai.request.top_p": sampling.topP,
      "gen_ai.response.id": record.requestId,
      "gen_ai.response.finish_reasons": [outcome],
      "gen_ai.usage.input_tokens": record.promptTokens,
      "gen_ai.usage.output_tokens": record.outputTokens,
      "gen_ai.latency.time_in_queue": seconds(queueMs(record)),
      "gen_ai.latency.time_to_first_token": seconds(ttftMs(record)),
      "gen_ai.latency.e2e": seconds(endMs - arrivalMs),
      "llumnix.priority": record.priority,
      "error.type": errorKind ?? undefined,
    },
    ...(errorKind !== null && { error: errorKind }),
  };
}

/** The parts of a request: queue, prefill, decode, and one for each migration. */
export function partsOf(
  record: RequestRecord,
  migrations: readonly TimedMigration[],
): PlannedSpan[] {
  const { arrivalMs, firstTokenMs, prefillMs, endMs } = record;
  const parts: PlannedSpan[] = [];
  const add = (name: string, startMs: number, end: number) =>
    parts.push({ name, startMs, endMs: Math.max(startMs, end), attributes: {} });
  if (firstTokenMs === null) {
    add("queue", arrivalMs, endMs); // it waited, or was refused
  } else {
    const startMs = Math.max(arrivalMs, firstTokenMs - (prefillMs ?? 0));
    add("queue", arrivalMs, startMs);
    add("prefill", startMs, firstTokenMs);
    add("decode", firstTokenMs, endMs);
  }
  return [...parts, ...migrations.map(migrationSpan)];
}

function migrationSpan(migration: TimedMigration): PlannedSpan {
  const { atMs, totalMs, outcome, reason } = migration;
  return {
    name: "migration",
    startMs: atMs - totalMs,
    endMs: atMs,
    attributes: {
      "llumnix.migration.id": migration.migrationId,
      "llumnix.migration.source": migration.sourceId,
      "llumnix.migration.destination": migration.destinationId,
      "llumnix.migration.backend": migration.backend,
      "llumnix.migration.outcome": outcome,
      "llumnix.migration.phase": migration.phase,
      "llumnix.migration.stages": migration.stages,
      "llumnix.migration.blocks": migration.blocks,
      "llumnix.migration.bytes": migration.bytes,
      "llumnix.migration.downtime": seconds(migration.downtimeMs),
    },
    ...(outcome !== "committed" && outcome !== "finished" && { error: reason }),
  };
}

function seconds(ms: number | null): number | undefined {
  return ms === null ? undefined : ms / 1000;
}
