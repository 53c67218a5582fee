import type { ResolvedModel } from "../../../model/resolve.ts";
import type { ModelConfig } from "../../../model/config.ts";

/** Largest sizes of the model that is tested: small, and more than one pass of every loop of the kernels. */
const most = { hidden: 256, intermediate: 320, vocabulary: 640, kvHeads: 2 } as const;

/**
 * A model that needs the same kernels as another one: one layer of random weights with its heads, head
 * groups, norms, biases, rotations and type. The sizes that kernels only loop over are small.
 */
export function testedModel(model: ResolvedModel, maxModelLen: number): ResolvedModel {
  const { config } = model;
  const group = config.numHeads / config.numKvHeads;
  const numKvHeads = Math.min(config.numKvHeads, most.kvHeads);
  const small: ModelConfig = {
    ...config,
    numLayers: 1,
    hiddenSize: Math.min(config.hiddenSize, most.hidden),
    intermediateSize: Math.min(config.intermediateSize, most.intermediate),
    vocabSize: Math.min(config.vocabSize, most.vocabulary),
    numKvHeads,
    numHeads: numKvHeads * group,
    eosTokenIds: [],
  };
  return {
    ...model,
    name: "of the self-test",
    identity: "of the self-test",
    directory: null, // random weights
    config: small,
    maxModelLen: Math.min(maxModelLen, model.maxModelLen),
  };
}
