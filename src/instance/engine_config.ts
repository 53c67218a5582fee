import { UsageError } from "../core/errors.ts";
import type { InstanceId, InstanceType } from "../core/messages.ts";
import type { EngineOptions } from "../core/options.ts";
import type { SchedulerConfig } from "./scheduler.ts";

export interface EngineConfig extends SchedulerConfig {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  /** Requests that may wait; more are refused as overload. */
  readonly maxWaitingRequests: number;
}

/**
 * Resolves what the arguments leave open, as vLLM 0.4.2 does (vllm/config.py, `SchedulerConfig`).
 * @param maxModelLen the executor's limit in tokens
 * @throws {UsageError} limits that contradict each other
 */
export function resolveEngineConfig(
  identity: Pick<EngineConfig, "instanceId" | "instanceType" | "maxWaitingRequests">,
  options: Pick<
    EngineOptions,
    "maxNumBatchedTokens" | "maxNumSeqs" | "schedulerDelayFactor" | "preemptionMode"
  >,
  maxModelLen: number,
): EngineConfig {
  const { maxNumSeqs, schedulerDelayFactor } = options;
  const maxNumBatchedTokens = options.maxNumBatchedTokens ?? Math.max(2048, maxModelLen);
  if (maxNumBatchedTokens < maxModelLen) {
    throw new UsageError(
      `--max-num-batched-tokens (${maxNumBatchedTokens}) is smaller than the longest sequence ` +
        `(${maxModelLen} tokens), which would never run. Raise it or lower --max-model-len.`,
    );
  }
  if (maxNumBatchedTokens < maxNumSeqs) {
    throw new UsageError(
      `--max-num-batched-tokens (${maxNumBatchedTokens}) is smaller than --max-num-seqs ` +
        `(${maxNumSeqs}): every running sequence takes a token of each step. Raise the first or ` +
        `lower the second.`,
    );
  }
  return {
    ...identity,
    maxNumSeqs,
    maxNumBatchedTokens,
    maxModelLen,
    schedulerDelayFactor,
    preemptionMode: options.preemptionMode ?? "recompute",
  };
}
