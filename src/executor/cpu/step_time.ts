import type { ModelConfig } from "../../model/config.ts";
import { allTensors, decoderSpec, numElements } from "../../model/structure.ts";

/**
 * Multiplications that a slow core does at least. Measured with a 0.5B model on two busy cores: 15 billion
 * a core without native kernels (61 prompt tokens/s), 32 billion with them.
 */
const MULTIPLICATIONS_PER_SECOND = 2e9;

/**
 * Extra time of a step for each of its tokens, before the step counts as hanging instead of slow.
 * @param maxModelLen longest context; the tokens of a long prompt see half of it on average
 * @param cores that compute; less than one if instances share a core
 */
export function tokenTimeoutMs(config: ModelConfig, maxModelLen: number, cores: number): number {
  const weights = allTensors(decoderSpec(config))
    .reduce((sum, { shape }) => sum + numElements(shape), 0);
  // A multiplication each for the keys and the values of all tokens that a token sees.
  const attention = 2 * (maxModelLen / 2) * config.numLayers * config.numHeads * config.headDim;
  return Math.ceil((weights + attention) / (MULTIPLICATIONS_PER_SECOND * cores) * 1000);
}
