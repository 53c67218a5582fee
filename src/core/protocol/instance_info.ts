/** Instance to manager: the state that dispatch, migration and scaling decide by. */
import type { InstanceId, RequestId } from "./generate.ts";

/** `both`: no disaggregation. */
export type InstanceType = "both" | "prefill" | "decode";

/**
 * State of an instance after a scheduling or engine step (src/manager/README.md, "Load"). Blocks are KV
 * blocks of the device pool.
 */
export interface InstanceInfo {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  /** Milliseconds since the epoch. */
  readonly timestampMs: number;
  readonly stepId: number;
  readonly totalBlocks: number;
  readonly freeBlocks: number;
  readonly usedBlocks: number;
  readonly watermarkBlocks: number;
  readonly runningRequests: number;
  /** Running requests of high priority. */
  readonly runningHighPriorityRequests: number;
  /** Running requests that have run their expected steps, and move to another instance next. */
  readonly leavingRequests: number;
  readonly waitingRequests: number;
  /** Requests preempted (swapped or to be recomputed) and not yet running again. */
  readonly killedRequests: number;
  /** Fractional: prompt length / block size. */
  readonly firstWaitingBlocks: number;
  /**
   * Requests that may be the first to fit at another instance, in the order of the queue. Only its
   * first {@linkcode MAX_LISTED_WAITING} requests are looked at.
   */
  readonly waiting: readonly QueuedRequest[];
  readonly allWaitingBlocks: number;
  /** Of the prompts that are being computed; fractional. */
  readonly prefillBlocks: number;
  readonly firstWaitingMs: number;
  readonly lastRunningBlocks: number;
  readonly lastStepKind: "prefill" | "decode" | "idle";
  readonly lastStepBatchedTokens: number;
  readonly lastStepSequences: number;
  /** Lengths of its sequences together: what its attention reads. */
  readonly lastStepContextTokens: number;
  readonly lastStepLatencyMs: number;
  readonly runningSequenceLengths: readonly number[];
  /** Most output tokens of the running requests together, as they asked for. */
  readonly maxOutputTokens: number;
  readonly finishedRequestIds: readonly RequestId[];
  /**
   * Requests that arrived from API servers since the report before, queued or refused: this report
   * is the first that counts their load.
   */
  readonly receivedRequestIds: readonly RequestId[];
  readonly totals: InstanceTotals;
}

/** A report looks at no more waiting requests, so that it stays small when the queue is long. */
export const MAX_LISTED_WAITING = 64;

/** A request in the queue of an instance. */
export interface QueuedRequest {
  readonly requestId: RequestId;
  /** That it needs; fractional. */
  readonly blocks: number;
  readonly arrivalMs: number;
}

/** What an instance has done since it started. */
export interface InstanceTotals {
  /** Tokens of prefills, recomputations after preemptions included. */
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly preemptions: number;
}
