import * as z from "zod";
import type { Buckets } from "../../stats/bucket_counts.ts";
import { type Check, checkWith } from "../check.ts";
import {
  type ClusterEvent,
  type ClusterState,
  type EventsQuery,
  type EventsReply,
  MAX_EVENTS_PER_REPLY,
  type MigrationEnded,
  type ResumeNotice,
} from "../monitoring.ts";
import { hostStatus, instanceStatus, loadNumber } from "./admin.ts";
import { amount, count, id, MAX_LIST_LENGTH, priority, text } from "./fields.ts";
import { leadershipStatus } from "./leadership.ts";
import { migrationOutcomes, migrationPhase } from "./migration.ts";

/** More backends, or combinations of a backend with outcomes and phases, than there are. */
const MAX_ROWS = 1_024;
const MAX_BUCKETS = 128;

const migrationEnd = z.enum([...migrationOutcomes, "unanswered"]);

const onInstance = <Type extends string>(type: Type) =>
  z.object({ type: z.literal(type), instanceId: id });
const migrationEnded = z.object({
  type: z.literal("migration_ended"),
  migrationId: id,
  sourceId: id,
  destinationId: id,
  backend: id,
  requestId: id.nullable(),
  outcome: migrationEnd,
  phase: migrationPhase,
  reason: text,
  lengthTokens: count,
  stages: count,
  blocks: count,
  bytes: count,
  transferMs: amount,
  downtimeMs: amount,
  totalMs: amount,
}) satisfies z.ZodType<MigrationEnded>;

const clusterEvent = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("dispatched"),
    requestId: id,
    instanceId: id,
    priority,
    promptTokens: count,
  }),
  z.object({ type: z.literal("ended"), requestId: id, instanceId: id }),
  z.object({ type: z.literal("preempted"), instanceId: id, count }),
  z.object({ type: z.literal("resumed"), requestId: id, reason: text }),
  z.object({
    type: z.literal("migration_started"),
    migrationId: id,
    sourceId: id,
    destinationId: id,
    backend: id,
  }),
  migrationEnded,
  onInstance("instance_starting"),
  onInstance("instance_ready"),
  onInstance("instance_draining"),
  onInstance("instance_kept"),
  onInstance("instance_stopped"),
  z.object({ type: z.literal("instance_lost"), instanceId: id, reason: text }),
  z.object({ type: z.literal("start_failed"), reason: text }),
  z.object({ type: z.literal("scaled"), change: z.int() }),
]) satisfies z.ZodType<ClusterEvent>;

export const eventsQuery: Check<EventsQuery> = checkWith(
  z.object({ after: count.nullable(), managerStartedMs: amount.optional() }),
);
export const eventsReply: Check<EventsReply> = checkWith(z.object({
  managerStartedMs: amount,
  events: z.array(clusterEvent.and(z.object({ sequence: count, atMs: amount })))
    .max(MAX_EVENTS_PER_REPLY),
  next: count,
  numDropped: count,
  hasMore: z.boolean(),
}));

const buckets: z.ZodType<Buckets> = z.object({
  bounds: z.array(z.number()).max(MAX_BUCKETS),
  counts: z.array(count).max(MAX_BUCKETS + 1),
  sum: z.number(),
});
const instanceLoad = instanceStatus.extend({
  blockSize: count.nullable(),
  backend: id.nullable(),
  executor: text.nullable(),
  migrationLoad: loadNumber.nullable(),
  freeness: loadNumber.nullable(),
  runningHighPriorityRequests: count.nullable(),
  pendingRequests: count,
  dispatchedRequests: count,
  firstWaitingMs: z.number().nullable(),
  lastStepKind: z.enum(["prefill", "decode", "idle"]).nullable(),
  lastStepMs: amount.nullable(),
  totals: z.object({ promptTokens: count, outputTokens: count, preemptions: count }).nullable(),
});
export const clusterState: Check<ClusterState> = checkWith(z.object({
  managerStartedMs: amount,
  timestampMs: amount,
  instances: z.array(instanceLoad).max(MAX_LIST_LENGTH),
  expectedInstances: count,
  hosts: z.array(hostStatus).max(MAX_LIST_LENGTH).default([]),
  leadership: leadershipStatus.optional(),
  statistics: z.object({
    dispatches: z.object({ placed: count, refused: count }),
    dispatchSeconds: buckets,
    migrations: z.array(z.object({
      backend: id,
      outcome: migrationEnd,
      phase: migrationPhase,
      count,
    })).max(MAX_ROWS),
    moves: z.array(z.object({
      backend: id,
      tokens: count,
      blocks: count,
      bytes: count,
      transferSeconds: amount,
      downtimeSeconds: buckets,
      totalSeconds: buckets,
      bytesPerSecond: buckets,
    })).max(MAX_ROWS),
    scaling: z.object({ up: count, down: count }),
    instances: z.object({ started: count, stopped: count, lost: count, startFailed: count }),
    resumedRequests: count,
  }),
}));
export const resumeNotice: Check<ResumeNotice> = checkWith(
  z.object({ requestId: id, reason: text }),
);
