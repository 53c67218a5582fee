import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import type {
  BackendCall,
  BlockPull,
  BlockRound,
  MigrateCommitRequest,
  MigrateInReply,
  MigrateInRequest,
  MigrateOutOrder,
  MigrateReserveReply,
  MigrateReserveRequest,
  MigrateSettleReply,
  MigrationGroup,
  MigrationGroupReply,
  MigrationName,
  MigrationReport,
} from "../migration.ts";
import { amount, count, counts, endpoint, id, number, text } from "./fields.ts";
import { request } from "./generate.ts";
import { decisionFields } from "./leadership.ts";

/** More instances than a group has. */
const MAX_MEMBERS = 16_384;
/** More migrations than one order begins. */
const MAX_REPORTS = 1_024;

export const migrationGroup: Check<MigrationGroup> = checkWith(z.object({
  secret: id,
  generation: count,
  members: z.array(z.object({ instanceId: id, rank: count, endpoint })).max(MAX_MEMBERS),
  ...decisionFields,
}));
export const migrationGroupReply: Check<MigrationGroupReply> = checkWith(z.object({
  failedPeers: z.array(z.object({ instanceId: id, reason: text })).max(MAX_MEMBERS),
}));

export const migrateOutOrder: Check<MigrateOutOrder> = checkWith(z.object({
  migrationId: id,
  destination: z.object({ instanceId: id, address: id, hostName: id.optional() }),
  policy: z.enum(["LCR", "SR", "LR", "FCW", "FCWSR", "FIT"]),
  room: z.object({ blocks: number, firstArrivalMs: number.nullable() }).optional(),
  aim: z.enum(["waiting", "room", "shortest"]).optional(),
  maxRequests: count.optional(),
  requestId: id.optional(),
  isUrgent: z.boolean().optional(),
  ...decisionFields,
}));

const statistics = z.object({
  bytes: count,
  descriptors: count,
  rounds: count,
  transferMs: number,
});
export const migrationOutcomes = [
  "committed",
  "nothing",
  "finished",
  "aborted_source",
  "aborted_destination",
] as const;
export const migrationPhase = z.enum(["choice", "opening", "copying", "last_stage", "commit"]);
const report = z.object({
  migrationId: id,
  sourceId: id,
  destinationId: id,
  requestId: id.nullable(),
  outcome: z.enum(migrationOutcomes),
  phase: migrationPhase,
  reason: text,
  lengthTokens: count,
  stages: count,
  blocks: count,
  transfer: statistics,
  isRecomputed: z.boolean().optional(),
  downtimeMs: number,
  totalMs: number,
  leftMs: number.optional(),
});
/** Reports of earlier migrations have none themselves. */
export const migrationReport: Check<MigrationReport> = checkWith(
  report.extend({ earlier: z.array(report).max(MAX_REPORTS).optional() }),
);

export const migrateInRequest: Check<MigrateInRequest> = checkWith(z.object({
  migrationId: id,
  sourceId: id,
  requestId: id,
  arrivalMs: number,
  lengthTokens: count,
  isWaiting: z.boolean(),
  model: text,
  backend: id,
  layout: z.record(id, z.union([id, number])),
}));
export const migrateInReply: Check<MigrateInReply> = checkWith(z.object({ endpoint }));
export const migrateReserveRequest: Check<MigrateReserveRequest> = checkWith(z.object({
  migrationId: id,
  stage: count,
  blocks: count,
  nextBlocks: count.optional(),
}));
export const migrateReserveReply: Check<MigrateReserveReply> = checkWith(
  z.object({ blocks: counts }),
);
export const migrateCommitRequest: Check<MigrateCommitRequest> = checkWith(
  z.object({ migrationId: id, request }),
);
export const migrationName: Check<MigrationName> = checkWith(z.object({ migrationId: id }));
export const migrateSettleReply: Check<MigrateSettleReply> = checkWith(
  z.object({ state: z.enum(["committed", "cancelled"]) }),
);
export const backendCall: Check<BackendCall> = checkWith(
  z.object({ topic: id, data: z.unknown() }),
);
/** Only the backend that asked knows what its answer looks like. */
export const backendAnswer: Check<unknown> = (data) => data;
export const blockRound: Check<BlockRound> = checkWith(z.object({
  migrationId: id,
  blocks: counts,
  firstLayer: count,
  numLayers: count.min(1),
}));
export const blockPull: Check<BlockPull> = checkWith(z.object({
  migrationId: id,
  sourceId: id,
  generation: id,
  sourceBlocks: counts,
  destinationBlocks: counts,
  timeoutMs: amount,
  isBackground: z.boolean(),
}));
