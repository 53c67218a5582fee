import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import {
  type Leadership,
  type LeadershipStatus,
  type ManagerDecision,
  MAX_EPOCH,
  type Presence,
  type ProcessIdentity,
} from "../leadership.ts";
import { count, id, MAX_ID_CHARS, servedSettings, text } from "./fields.ts";

const leadershipSchema: z.ZodType<Leadership> = z.object({
  epoch: z.int().min(1).max(MAX_EPOCH),
  leader: id,
});

export const leadership: Check<Leadership> = checkWith(leadershipSchema);

/** Field of every decision of a manager. */
export const decisionFields = { leadership: leadershipSchema.optional() };

const decision = checkWith(z.object(decisionFields));
/** A decision that says nothing else. Managers of before there were epochs sent no data. */
export const managerDecision: Check<ManagerDecision> = (data) =>
  data === null ? {} : decision(data);

export const leadershipStatus: z.ZodType<LeadershipStatus> = z.object({
  isLeader: z.boolean(),
  epoch: count,
  leader: z.string().max(MAX_ID_CHARS),
  address: z.string().max(MAX_ID_CHARS),
  storeProblem: text.nullable(),
});

export const presence: Check<Presence> = checkWith(z.object({ instanceId: id }));

export const processIdentity: Check<ProcessIdentity> = checkWith(
  z.object({ process: id, settings: servedSettings.optional() }),
);
