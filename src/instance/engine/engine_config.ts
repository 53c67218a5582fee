import { UsageError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceType } from "../../core/protocol/instance_info.ts";
import type { EngineOptions } from "../../core/options.ts";
import type { ExecutorInfo } from "../../executor/executor.ts";
import type { SchedulerConfig } from "./scheduler.ts";

export interface EngineConfig extends SchedulerConfig {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  /** Most requests that wait; more are refused as overload. */
  readonly maxWaitingRequests: number;
  /** A step that takes longer counts as hanging; Infinity: steps may take any time. */
  readonly stepTimeoutMs: number;
  /** Added to that for each token of the step. */
  readonly stepTimeoutPerTokenMs: number;
}

/**
 * vLLM's smallest default for the tokens of a step. Prompts of 2,048 tokens together keep a GPU's
 * arithmetic units busy: in a longer step the prompts only wait for each other.
 */
const DEFAULT_BATCHED_TOKENS = 2048;

/**
 * Resolves defaults as vLLM 0.4.2 does (vllm/config.py, `SchedulerConfig`), with one difference:
 * without `--max-num-batched-tokens`, a step is longer than {@linkcode DEFAULT_BATCHED_TOKENS} only
 * if it computes a single prompt.
 * @param executor limits of the model and its executor
 * @throws {UsageError} limits that contradict each other
 */
export function resolveEngineConfig(
  identity: Pick<EngineConfig, "instanceId" | "instanceType" | "maxWaitingRequests">,
  options: Pick<
    EngineOptions,
    | "maxNumBatchedTokens"
    | "maxNumSeqs"
    | "preemptionMode"
    | "prefillHoldTimeout"
    | "schedulerDelayFactor"
    | "stepTimeout"
  >,
  executor: Pick<ExecutorInfo, "maxModelLen" | "maxPieceTokens" | "tokenTimeoutMs">,
): EngineConfig {
  const { maxModelLen, maxPieceTokens, tokenTimeoutMs = 0 } = executor;
  const { maxNumSeqs, schedulerDelayFactor, stepTimeout } = options;
  const maxNumBatchedTokens = options.maxNumBatchedTokens ??
    Math.max(DEFAULT_BATCHED_TOKENS, maxModelLen);
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
    maxSharedPrefillTokens: options.maxNumBatchedTokens ?? DEFAULT_BATCHED_TOKENS,
    maxModelLen,
    maxPieceTokens,
    schedulerDelayFactor,
    preemptionMode: options.preemptionMode ?? "recompute",
    prefillHoldMs: options.prefillHoldTimeout * 1000,
    stepTimeoutMs: stepTimeout > 0 ? stepTimeout * 1000 : Infinity,
    stepTimeoutPerTokenMs: tokenTimeoutMs,
  };
}
