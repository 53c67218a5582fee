import * as z from "zod";
import {
  type AgentExited,
  type AgentJoin,
  type AgentReplace,
  type AgentSignal,
  type AgentStart,
  type AgentStarted,
  type AgentVersions,
  MAX_HOST_SLOTS,
} from "../agents.ts";
import { type Check, checkWith } from "../check.ts";
import { amount, count, id, servedSettings, text } from "./fields.ts";
import { decisionFields, managerDecision } from "./leadership.ts";
import { standingOrders } from "./standing_orders.ts";

/** Longest name of a host: that of a DNS label. */
const hostName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "expected a host's name");
/** Instances that end while others start take no slot. */
const MAX_INSTANCES = 4 * MAX_HOST_SLOTS;

export const agentJoin: Check<AgentJoin> = checkWith(z.object({
  host: hostName,
  address: id,
  pid: count,
  number: count.optional(),
  machine: id,
  resources: z.object({ cudaDevices: count, cores: count, memoryBytes: amount }),
  slots: count.max(MAX_HOST_SLOTS),
  initialInstances: count.max(MAX_HOST_SLOTS),
  settings: servedSettings.optional(),
  instances: z.array(z.object({ instanceId: id, pid: count })).max(MAX_INSTANCES),
  starting: z.array(id).max(MAX_INSTANCES).optional(),
  orders: standingOrders.optional(),
}));
/** The answer to `agent_join`: the manager that says so leads. */
export const agentJoined = managerDecision;
export const agentStart: Check<AgentStart> = checkWith(z.object({
  instanceId: id,
  managerAddress: id,
  numBlocks: count.min(1).nullable(),
  replaces: id.optional(),
  ...decisionFields,
}));
export const agentStarted: Check<AgentStarted> = checkWith(z.object({ pid: count }));
export const agentSignal: Check<AgentSignal> = checkWith(z.object({
  instanceId: id,
  signal: z.enum(["SIGTERM", "SIGKILL"]),
  ...decisionFields,
}));
export const agentExited: Check<AgentExited> = checkWith(
  z.object({ instanceId: id, code: z.int().nullable(), signal: id.nullable() }),
);
export const agentReplace: Check<AgentReplace> = checkWith(z.object({ instanceId: id }));
export const agentVersions: Check<AgentVersions> = checkWith(z.object({
  instances: z.array(z.object({ instanceId: id, version: text.nullable() })).max(MAX_INSTANCES),
}));
