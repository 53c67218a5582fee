/** What a device needs to choose a token as the host's sampler would. */
import {
  type LogitEdits,
  mostTopTokens,
  type RowChoice,
} from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import type { SamplingParams } from "../../core/protocol/generate.ts";

/** Parameters closer than this to "off" are off (vLLM's _SAMPLING_EPS). */
export const epsilon = 1e-5;

/** The choice of one token. */
export interface TokenRequest {
  readonly choice: Omit<RowChoice, "edits">;
  /** Null: the logits are as the model has them. */
  readonly edits: LogitEdits | null;
}

export function isGreedy({ temperature }: SamplingParams): boolean {
  return temperature < epsilon;
}

export function hasPenalties(params: SamplingParams): boolean {
  return Math.abs(params.presencePenalty) >= epsilon ||
    Math.abs(params.frequencyPenalty) >= epsilon ||
    Math.abs(params.repetitionPenalty - 1) >= epsilon;
}

/**
 * Whether a device can choose the next token before the host knows the token before it: the choice does not
 * depend on the output's tokens, only on how many there are, and the device can report all that is asked for.
 */
export function canChooseAhead(params: SamplingParams): boolean {
  return !hasPenalties(params) && (params.badWords?.length ?? 0) === 0 &&
    (params.logprobs ?? 0) <= mostTopTokens && !namesTwice(params.logitBias);
}

/** The order of such a list counts, and devices know none. */
function namesTwice(bias: SamplingParams["logitBias"]): boolean {
  return bias !== undefined && new Set(bias.map(([id]) => id)).size < bias.length;
}

/** The choice that parameters stand for. @param largestWeight see distribution.ts */
export function choiceOf(
  params: SamplingParams,
  position: number,
  largestWeight: number,
): TokenRequest["choice"] {
  const draws = !isGreedy(params);
  return {
    draws,
    inverseTemperature: draws ? 1 / params.temperature : 1,
    topK: Math.max(0, Math.min(params.topK, 2 ** 31 - 1)),
    dropShare: params.topP < 1 - epsilon ? 1 - params.topP : -1,
    leastWeight: params.minP > epsilon ? params.minP * largestWeight : 0,
    seed: params.seed,
    position,
    numTop: params.logprobs ?? -1,
  };
}
