import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import type {
  FinishNotice,
  Handover,
  ManagerHandover,
  TakeOver,
  Upgraded,
  UpgradeOrder,
  UpgradeStatus,
} from "../upgrade.ts";
import { amount, count, id, text } from "./fields.ts";
import { decisionFields } from "./leadership.ts";

/** A day: timers take no more than 24. */
const MAX_WAIT_MS = 86_400_000;
/** The longest path of Linux (PATH_MAX). */
const MAX_PATH_CHARS = 4_096;
/** More than a manager looks after. */
const MAX_INSTANCES = 16_384;

const waitMs = amount.max(MAX_WAIT_MS);

const instanceVersions = z.array(z.object({ instanceId: id, version: text.nullable() }))
  .max(MAX_INSTANCES);

export const upgradeOrder: Check<UpgradeOrder> = checkWith(
  z.object({ binary: z.string().startsWith("/").max(MAX_PATH_CHARS).nullable() }),
);
export const upgraded: Check<Upgraded> = checkWith(z.object({ pid: count, version: text }));
export const upgradeStatus: Check<UpgradeStatus> = checkWith(z.object({
  role: z.enum(["serve", "manager", "agent", "api-server"]),
  pid: count,
  version: text,
  isReplaced: z.boolean(),
  instances: instanceVersions,
  rollout: z.object({
    total: count,
    replaced: count,
    isOver: z.boolean(),
    error: text.nullable(),
  }).nullable(),
}));
export const takeOver: Check<TakeOver> = checkWith(
  z.object({ version: text, candidate: id.optional() }),
);
export const handover: Check<Handover> = checkWith(
  z.object({ managerAddress: id.nullable(), numInstances: count.max(MAX_INSTANCES).nullable() }),
);
export const finishNotice: Check<FinishNotice> = checkWith(z.object({ withinMs: waitMs }));
export const managerHandover: Check<ManagerHandover> = checkWith(
  z.object({ waitMs, ...decisionFields }),
);
