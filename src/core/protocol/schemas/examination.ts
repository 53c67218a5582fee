import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import {
  type ClusterReport,
  MAX_EXAMINED_HOSTS,
  MAX_EXAMINED_INSTANCES,
  MAX_REFUSALS,
  type PathEnd,
  type PathOrder,
  type PathQuestion,
  type PathSpeed,
  type ProcessReport,
} from "../examination.ts";
import { amount, count, id, number, servedSettings, text } from "./fields.ts";
import { decisionFields } from "./leadership.ts";

const process = z.object({
  process: id,
  hostName: id.optional(),
  version: text,
  timeMs: number,
  settings: servedSettings.optional(),
  cost: z.object({
    bytesPerToken: amount,
    prefillTokensPerSecond: amount.nullable(),
  }).optional(),
});
const clock = z.object({ aheadMs: number, uncertaintyMs: amount, roundTripMs: amount });

export const processReport: Check<ProcessReport> = checkWith(process);
export const clusterReport: Check<ClusterReport> = checkWith(z.object({
  ...decisionFields,
  settings: servedSettings.optional(),
  hosts: z.array(z.object({
    host: id,
    address: id,
    slots: count,
    instances: count,
    process: process.nullable(),
    clock: clock.nullable(),
    failure: text.nullable(),
  })).max(MAX_EXAMINED_HOSTS),
  instances: z.array(z.object({
    instanceId: id,
    address: id,
    hostName: id.optional(),
    version: text.optional(),
  })).max(MAX_EXAMINED_INSTANCES),
  refusals: z.array(z.object({ host: id, address: id, reason: text, agoMs: amount }))
    .max(MAX_REFUSALS),
  numHostsOmitted: count,
  numInstancesOmitted: count,
}));
export const pathQuestion: Check<PathQuestion> = checkWith(z.object({ from: id, to: id }));
export const pathEnd: Check<PathEnd> = checkWith(z.object({ address: id }));
export const pathOrder: Check<PathOrder> = checkWith(z.object({ address: id, ...decisionFields }));
export const pathSpeed: Check<PathSpeed> = checkWith(z.object({
  address: id,
  roundTripMs: amount,
  bytesPerSecond: amount,
  bytes: count,
  ms: amount,
}));
