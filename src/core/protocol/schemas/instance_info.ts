import { MessageError } from "../../errors.ts";
import { type InstanceInfo, MAX_LISTED_WAITING } from "../instance_info.ts";
import { isCount, isId, isList } from "./fields.ts";

const counts = [
  "stepId",
  "totalBlocks",
  "freeBlocks",
  "usedBlocks",
  "watermarkBlocks",
  "runningRequests",
  "runningHighPriorityRequests",
  "leavingRequests",
  "waitingRequests",
  "killedRequests",
  "lastStepBatchedTokens",
  "lastStepSequences",
  "lastStepContextTokens",
  "maxOutputTokens",
] as const satisfies (keyof InstanceInfo)[];
const numbers = [
  "timestampMs",
  "firstWaitingBlocks",
  "allWaitingBlocks",
  "prefillBlocks",
  "firstWaitingMs",
  "lastRunningBlocks",
  "lastStepLatencyMs",
] as const satisfies (keyof InstanceInfo)[];
const totals = ["promptTokens", "outputTokens", "preemptions"] as const;
const instanceTypes = new Set<unknown>(["both", "prefill", "decode"]);
const stepKinds = new Set<unknown>(["prefill", "decode", "idle"]);

/**
 * A report as it is sent between processes: its values in a fixed order. 1,024 instances report 20,000
 * times a second, and the names of the fields would be two thirds of a report.
 */
export function packInstanceInfo(info: InstanceInfo): unknown[] {
  return [
    info.instanceId,
    info.instanceType,
    info.timestampMs,
    info.stepId,
    info.totalBlocks,
    info.freeBlocks,
    info.usedBlocks,
    info.watermarkBlocks,
    info.runningRequests,
    info.runningHighPriorityRequests,
    info.leavingRequests,
    info.waitingRequests,
    info.killedRequests,
    info.firstWaitingBlocks,
    info.waiting,
    info.allWaitingBlocks,
    info.prefillBlocks,
    info.firstWaitingMs,
    info.lastRunningBlocks,
    info.lastStepKind,
    info.lastStepBatchedTokens,
    info.lastStepSequences,
    info.lastStepContextTokens,
    info.lastStepLatencyMs,
    info.runningSequenceLengths,
    info.maxOutputTokens,
    info.finishedRequestIds,
    info.receivedRequestIds,
    info.totals.promptTokens,
    info.totals.outputTokens,
    info.totals.preemptions,
  ];
}

/** The inverse of {@linkcode packInstanceInfo}; nothing is checked. */
function unpack(packed: readonly unknown[]): unknown {
  return {
    instanceId: packed[0],
    instanceType: packed[1],
    timestampMs: packed[2],
    stepId: packed[3],
    totalBlocks: packed[4],
    freeBlocks: packed[5],
    usedBlocks: packed[6],
    watermarkBlocks: packed[7],
    runningRequests: packed[8],
    runningHighPriorityRequests: packed[9],
    leavingRequests: packed[10],
    waitingRequests: packed[11],
    killedRequests: packed[12],
    firstWaitingBlocks: packed[13],
    waiting: packed[14],
    allWaitingBlocks: packed[15],
    prefillBlocks: packed[16],
    firstWaitingMs: packed[17],
    lastRunningBlocks: packed[18],
    lastStepKind: packed[19],
    lastStepBatchedTokens: packed[20],
    lastStepSequences: packed[21],
    lastStepContextTokens: packed[22],
    lastStepLatencyMs: packed[23],
    runningSequenceLengths: packed[24],
    maxOutputTokens: packed[25],
    finishedRequestIds: packed[26],
    receivedRequestIds: packed[27],
    totals: { promptTokens: packed[28], outputTokens: packed[29], preemptions: packed[30] },
  };
}

/**
 * Reads a report, packed or by the names of its fields. By hand: a schema takes 20 us for each, this takes
 * 1 us, because it reads each field by its name; which field does not fit is found out only when one does
 * not.
 */
export function readInstanceInfo(data: unknown): InstanceInfo {
  if (typeof data !== "object" || data === null) {
    throw new MessageError("the data: expected the state of an instance");
  }
  const info = (Array.isArray(data) ? unpack(data) : data) as InstanceInfo;
  if (!fits(info)) nameUnfitting(info);
  return info;
}

function fits(info: InstanceInfo): boolean {
  return isId(info.instanceId) &&
    instanceTypes.has(info.instanceType) &&
    stepKinds.has(info.lastStepKind) &&
    isCount(info.stepId) &&
    isCount(info.totalBlocks) &&
    isCount(info.freeBlocks) &&
    isCount(info.usedBlocks) &&
    isCount(info.watermarkBlocks) &&
    isCount(info.runningRequests) &&
    isCount(info.runningHighPriorityRequests) &&
    isCount(info.leavingRequests) &&
    isCount(info.waitingRequests) &&
    isCount(info.killedRequests) &&
    isCount(info.lastStepBatchedTokens) &&
    isCount(info.lastStepSequences) &&
    isCount(info.lastStepContextTokens) &&
    isCount(info.maxOutputTokens) &&
    Number.isFinite(info.timestampMs) &&
    Number.isFinite(info.firstWaitingBlocks) &&
    Number.isFinite(info.allWaitingBlocks) &&
    Number.isFinite(info.prefillBlocks) &&
    Number.isFinite(info.firstWaitingMs) &&
    Number.isFinite(info.lastRunningBlocks) &&
    Number.isFinite(info.lastStepLatencyMs) &&
    isList(info.waiting, isQueued, MAX_LISTED_WAITING) &&
    isList(info.runningSequenceLengths, isCount) &&
    isList(info.finishedRequestIds, isId) &&
    isList(info.receivedRequestIds, isId) &&
    typeof info.totals === "object" && info.totals !== null &&
    isCount(info.totals.promptTokens) &&
    isCount(info.totals.outputTokens) &&
    isCount(info.totals.preemptions);
}

/** @throws {MessageError} always */
function nameUnfitting(info: InstanceInfo): never {
  if (!isId(info.instanceId)) fail("instanceId", "an id");
  if (!instanceTypes.has(info.instanceType)) fail("instanceType", "both, prefill or decode");
  if (!stepKinds.has(info.lastStepKind)) fail("lastStepKind", "prefill, decode or idle");
  for (const name of counts) if (!isCount(info[name])) fail(name, "a whole number, 0 or more");
  for (const name of numbers) if (!Number.isFinite(info[name])) fail(name, "a number");
  if (!isList(info.waiting, isQueued, MAX_LISTED_WAITING)) {
    fail("waiting", `at most ${MAX_LISTED_WAITING} requests with requestId, blocks and arrivalMs`);
  }
  if (!isList(info.runningSequenceLengths, isCount)) {
    fail("runningSequenceLengths", "a list of lengths");
  }
  if (!isList(info.finishedRequestIds, isId)) fail("finishedRequestIds", "a list of ids");
  if (!isList(info.receivedRequestIds, isId)) fail("receivedRequestIds", "a list of ids");
  if (typeof info.totals !== "object" || info.totals === null) fail("totals", "an object");
  const name = totals.find((one) => !isCount(info.totals[one]));
  fail(`totals.${name}`, "a whole number, 0 or more");
}

function isQueued(data: unknown): boolean {
  if (typeof data !== "object" || data === null) return false;
  const { requestId, blocks, arrivalMs } = data as Record<string, unknown>;
  return isId(requestId) && Number.isFinite(blocks) && Number.isFinite(arrivalMs);
}

function fail(name: string, expected: string): never {
  throw new MessageError(`field ${name}: expected ${expected}`);
}
