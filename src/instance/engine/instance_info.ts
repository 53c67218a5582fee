import type { RequestId } from "../../core/protocol/generate.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { BlockManager } from "./block_manager.ts";
import type { EngineConfig } from "./engine_config.ts";
import { listedWaiting } from "./listed_waiting.ts";
import type { Schedule, Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import type { StepBuilder } from "./step_builder.ts";

/** The parts of an engine that a report describes. */
export interface InfoParts {
  readonly config: Pick<EngineConfig, "instanceId" | "instanceType">;
  readonly scheduler: Scheduler;
  readonly blocks: BlockManager;
  readonly builder: Pick<StepBuilder, "stepId">;
  readonly lastStep: LastStep;
  readonly totals: InstanceInfo["totals"];
}

/** The last step that ended. */
export class LastStep {
  kind: InstanceInfo["lastStepKind"] = "idle";
  batchedTokens = 0;
  sequences = 0;
  contextTokens = 0;
  latencyMs = 0;
}

/**
 * The report of an instance. A request that migrates away still counts until it has moved.
 * @param step the running step; null between steps
 * @param receivedRequestIds requests that arrived since the report before
 */
export function instanceInfo(
  parts: InfoParts,
  step: Readonly<Schedule> | null,
  finishedRequestIds: readonly RequestId[],
  receivedRequestIds: readonly RequestId[],
  nowMs: number,
): InstanceInfo {
  const { config, lastStep } = parts;
  const { promptTokens, outputTokens, preemptions } = parts.totals;
  const { waiting, running, swapped, suspended } = parts.scheduler;
  const { totalBlocks, freeBlocks, watermarkBlocks, blockSize } = parts.blocks;
  let active: readonly Sequence[] = running;
  let waitingRequests = waiting.length, waitingTokens = 0, killedRequests = swapped.length;
  for (const sequence of waiting) {
    waitingTokens += sequence.lengthTokens;
    if (sequence.isPreempted) killedRequests++;
  }
  for (const sequence of suspended) {
    if (sequence.blocks.length > 0) active = [...active, sequence];
    else {
      waitingRequests++;
      waitingTokens += sequence.lengthTokens;
    }
  }
  const runningSequenceLengths = new Array<number>(active.length);
  let leavingRequests = 0, runningHighPriorityRequests = 0, maxOutputTokens = 0;
  for (let i = 0; i < active.length; i++) {
    const sequence = active[i];
    runningSequenceLengths[i] = sequence.lengthTokens;
    if (sequence.hasReachedExpectedSteps) leavingRequests++;
    if (sequence.priority === "high") runningHighPriorityRequests++;
    maxOutputTokens += sequence.params.maxTokens;
  }
  const first = waiting.at(0), last = running.at(-1);
  return {
    instanceId: config.instanceId,
    instanceType: config.instanceType,
    timestampMs: nowMs,
    stepId: parts.builder.stepId,
    totalBlocks,
    freeBlocks,
    usedBlocks: totalBlocks - freeBlocks,
    watermarkBlocks,
    runningRequests: active.length,
    leavingRequests,
    runningHighPriorityRequests,
    waitingRequests,
    killedRequests,
    firstWaitingBlocks: first ? first.lengthTokens / blockSize : 0,
    allWaitingBlocks: waitingTokens / blockSize,
    prefillBlocks: prefillTokens(parts.scheduler, step) / blockSize,
    waiting: listedWaiting(waiting, blockSize),
    firstWaitingMs: first ? Math.max(0, nowMs - first.arrivalMs) : 0,
    lastRunningBlocks: last ? last.blocks.length : 0,
    lastStepKind: lastStep.kind,
    lastStepBatchedTokens: lastStep.batchedTokens,
    lastStepSequences: lastStep.sequences,
    lastStepContextTokens: lastStep.contextTokens,
    lastStepLatencyMs: lastStep.latencyMs,
    runningSequenceLengths,
    maxOutputTokens,
    finishedRequestIds,
    receivedRequestIds,
    totals: { promptTokens, outputTokens, preemptions },
  };
}

/** Tokens of the prompts that are being computed. */
function prefillTokens({ partialTokens }: Scheduler, step: Readonly<Schedule> | null): number {
  const isWhole = step?.kind === "prefill" && !step.isPartial;
  return partialTokens + (isWhole ? step.numBatchedTokens : 0);
}
