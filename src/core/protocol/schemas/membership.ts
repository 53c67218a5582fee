import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import type {
  DrainReply,
  InstanceList,
  InstanceProgress,
  InstanceRegistration,
  JoinReply,
  JoinRequest,
  MigrationRegistration,
  ReportInterval,
} from "../membership.ts";
import type { ErrorRecord } from "../../errors.ts";
import {
  amount,
  count,
  endpoint,
  errorRecord,
  id,
  instanceType,
  servedSettings,
  text,
} from "./fields.ts";
import { decisionFields } from "./leadership.ts";
import { standingOrders } from "./standing_orders.ts";

/** A day: timers take no more than 24. */
const MAX_INTERVAL_MS = 86_400_000;
/** More than a manager looks after. */
const MAX_INSTANCES = 16_384;

const migration: z.ZodType<MigrationRegistration> = z.object({ backend: id, endpoint });

const registration: z.ZodType<InstanceRegistration> = servedSettings.extend({
  instanceId: id,
  instanceType,
  address: id,
  hostName: id.optional(),
  pid: count,
  processStart: id.optional(),
  version: text.optional(),
  executor: text,
  blockSize: count.min(1),
  totalBlocks: count,
  swapBlocks: count,
  longestStepMs: amount.nullable().optional(),
  migration: migration.optional(),
  migrationFailure: text.optional(),
});
export const instanceRegistration: Check<InstanceRegistration> = checkWith(registration);

export const joinRequest: Check<JoinRequest> = checkWith(z.object({
  instanceId: id,
  incarnation: id.optional(),
  isRunning: z.boolean().optional(),
  registration: registration.optional(),
  startedBy: z.enum(["manager", "api-server", "hand"]).optional(),
  orders: standingOrders.optional(),
}));
export const joinReply: Check<JoinReply> = checkWith(
  z.object({ infoIntervalMs: amount.max(MAX_INTERVAL_MS), instanceType, ...decisionFields }),
);
export const reportInterval: Check<ReportInterval> = checkWith(
  z.object({ infoIntervalMs: amount.max(MAX_INTERVAL_MS) }),
);
export const drainReply: Check<DrainReply> = checkWith(
  z.object({ mayDrain: z.boolean(), ...decisionFields }),
);
export const instanceProgress: Check<InstanceProgress> = checkWith(z.object({
  instanceId: id,
  phase: id,
  doneBytes: amount,
  totalBytes: amount,
  detail: text,
}));
export const instanceFailure: Check<ErrorRecord> = checkWith(errorRecord);
export const instanceList: Check<InstanceList> = checkWith(z.object({
  version: count,
  instances: z.array(registration).max(MAX_INSTANCES),
  expectedInstances: count,
  takesRequests: z.boolean().optional(),
  stopped: z.array(id).max(MAX_INSTANCES).optional(),
  settings: servedSettings.optional(),
  ...decisionFields,
}));
