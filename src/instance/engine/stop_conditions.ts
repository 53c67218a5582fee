import type { Finish } from "../../core/protocol/generate.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Why a sequence ends with the output it has; null if it does not. The order of conditions is that
 * of vLLM 0.4.2 (vllm/engine/output_processor/stop_checker.py). Stop strings need text and are
 * checked by the API server. Prompt and output together end at `maxModelLen` tokens.
 */
export function finishOf(sequence: Sequence, maxModelLen: number): Finish | null {
  const { params, outputTokenIds } = sequence;
  const numOutputs = outputTokenIds.length;
  if (numOutputs === 0) return null;
  if (numOutputs >= params.minTokens) {
    const token = outputTokenIds[numOutputs - 1];
    if (!params.ignoreEos && params.eosTokenIds.includes(token)) return { reason: "stop" };
    if (params.stopTokenIds.includes(token)) return { reason: "stop", stopTokenId: token };
  }
  if (numOutputs >= params.maxTokens || sequence.lengthTokens >= maxModelLen) {
    return { reason: "length" };
  }
  return null;
}
