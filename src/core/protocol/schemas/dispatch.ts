import * as z from "zod";
import { type Check, checkWith } from "../check.ts";
import type { DispatchReply, DispatchRequest, IsolationNotice } from "../dispatch.ts";
import { count, id, priority } from "./fields.ts";
import { decisionFields } from "./leadership.ts";

export const dispatchRequest: Check<DispatchRequest> = checkWith(z.object({
  requestId: id,
  promptTokens: count,
  priority: priority.optional(),
  isolatedBy: id.optional(),
}));
export const dispatchReply: Check<DispatchReply> = checkWith(
  z.object({ instanceId: id, expectedSteps: count.optional(), ...decisionFields }),
);
export const isolationNotice: Check<IsolationNotice> = checkWith(z.object({ frontendId: id }));
