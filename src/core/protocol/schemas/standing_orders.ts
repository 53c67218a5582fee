import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import { MAX_EPOCH } from "../leadership.ts";
import {
  type KeepOrders,
  MAX_DRAINED_HOSTS,
  MAX_DRAINED_INSTANCES,
  type StandingOrders,
} from "../standing_orders.ts";
import { count, id } from "./fields.ts";
import { decisionFields } from "./leadership.ts";

export const standingOrders: z.ZodType<StandingOrders> = z.object({
  epoch: count.max(MAX_EPOCH),
  version: count,
  instanceChange: z.int().min(-MAX_DRAINED_INSTANCES).max(MAX_DRAINED_INSTANCES),
  drains: z.array(
    z.object({ instanceId: id, by: z.enum(["operator", "scaling"]), isRemoval: z.boolean() }),
  ).max(MAX_DRAINED_INSTANCES),
  hostDrains: z.array(z.object({ hostName: id, atOnce: count.min(1).nullable() }))
    .max(MAX_DRAINED_HOSTS),
});
export const keepOrders: Check<KeepOrders> = checkWith(
  z.object({ orders: standingOrders, ...decisionFields }),
);
