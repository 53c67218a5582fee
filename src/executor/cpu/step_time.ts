import type { ModelConfig } from "../../model/config.ts";
import { allTensors, decoderSpec, numElements } from "../../model/structure.ts";

/**
 * What a slow core does at least. Measured with a 0.5B model on two cores that others used as well: 15
 * billion a core without native kernels (61 prompt tokens/s), 32 with them.
 */
const MULTIPLICATIONS_PER_SECOND = 2e9;

/**
 * What each token of a step may take until the step hangs rather than being slow.
 * @param maxModelLen longest context; tokens of a long prompt see half of it on average
 * @param cores that compute; less than one where instances share it
 */
export function tokenTimeoutMs(config: ModelConfig, maxModelLen: number, cores: number): number {
  const weights = allTensors(decoderSpec(config))
    .reduce((sum, { shape }) => sum + numElements(shape), 0);
  // Of each of the tokens seen, keys and values.
  const attention = 2 * (maxModelLen / 2) * config.numLayers * config.numHeads * config.headDim;
  return Math.ceil((weights + attention) / (MULTIPLICATIONS_PER_SECOND * cores) * 1000);
}
