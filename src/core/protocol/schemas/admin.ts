import * as z from "zod";
import type {
  AdminMigration,
  AdminRequests,
  HostDrainOrder,
  HostName,
  HostStatus,
  InstanceChange,
  InstanceName,
  InstanceStatus,
  OperatorChallenge,
  OperatorProof,
  RequestsQuery,
  RequestsReply,
} from "../admin.ts";
import { type Check, checkWith } from "../check.ts";
import { count, id, ids, instanceType, MAX_LIST_LENGTH, number, priority } from "./fields.ts";

const instanceState = z.enum([
  "starting",
  "serving",
  "draining",
  "drained",
  "stopping",
  "unreachable",
]);

export const requestsQuery: Check<RequestsQuery> = checkWith(
  z.object({ requestIds: ids.optional() }),
);
const requestsFields = z.object({
  requests: z.array(z.object({
    requestId: id,
    instanceId: id.nullable(),
    priority,
    state: z.enum(["waiting", "running", "swapped", "suspended", "finished"]),
    promptTokens: count,
    outputTokens: count,
    ageMs: number,
  })).max(MAX_LIST_LENGTH),
  numOmitted: count,
});
export const requestsReply: Check<RequestsReply> = checkWith(requestsFields);
export const adminRequests: Check<AdminRequests> = checkWith(
  requestsFields.extend({ unreachable: ids }),
);
export const loadNumber = z.union([number, z.literal("inf"), z.literal("-inf")]);
export const instanceStatus = z.object({
  instanceId: id,
  instanceType,
  state: instanceState,
  pid: count.nullable(),
  hostName: id.nullable().default(null),
  totalBlocks: count.nullable(),
  usedBlocks: count.nullable(),
  load: loadNumber.nullable(),
  runningRequests: count.nullable(),
  waitingRequests: count.nullable(),
  killedRequests: count.nullable(),
});
export const instanceStatuses: Check<readonly InstanceStatus[]> = checkWith(
  z.array(instanceStatus).max(MAX_LIST_LENGTH),
);
export const instanceChange: Check<InstanceChange> = checkWith(
  z.object({ instanceId: id, state: instanceState }),
);
export const operatorChallenge: Check<OperatorChallenge> = checkWith(
  z.object({ challenge: id }),
);
export const operatorProof: Check<OperatorProof> = checkWith(z.object({ proof: id }));
export const instanceName: Check<InstanceName> = checkWith(z.object({ instanceId: id }));
export const hostStatus = z.object({
  hostName: id,
  state: z.enum(["serving", "draining", "drained"]),
  instances: count,
  availableInstances: count,
  runningRequests: count,
  waitingRequests: count,
});
export const hostStatusReply: Check<HostStatus> = checkWith(hostStatus);
export const hostStatuses: Check<readonly HostStatus[]> = checkWith(
  z.array(hostStatus).max(MAX_LIST_LENGTH),
);
export const hostName: Check<HostName> = checkWith(z.object({ hostName: id }));
export const hostDrainOrder: Check<HostDrainOrder> = checkWith(
  z.object({ hostName: id, atOnce: count.min(1).optional() }),
);
export const adminMigration: Check<AdminMigration> = checkWith(
  z.object({ requestId: id, destinationId: id }),
);
