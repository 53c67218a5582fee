/**
 * Weights of the supported families by name and shape, as stored in Hugging Face checkpoints. The
 * four families share one structure; the config says which optional parts a model has.
 */
import type { ModelConfig } from "./config.ts";

/** A stored tensor: linear weights are [outputs, inputs]. */
export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface LinearSpec {
  readonly weight: TensorSpec;
  readonly bias: TensorSpec | null;
}

export interface LayerSpec {
  readonly inputNorm: TensorSpec;
  readonly query: LinearSpec;
  readonly key: LinearSpec;
  readonly value: LinearSpec;
  /** RMS norm weights over a head, [headDim]; null without qk-norm. */
  readonly queryNorm: TensorSpec | null;
  readonly keyNorm: TensorSpec | null;
  readonly output: LinearSpec;
  readonly postAttentionNorm: TensorSpec;
  readonly gate: LinearSpec;
  readonly up: LinearSpec;
  readonly down: LinearSpec;
}

export interface DecoderSpec {
  readonly embedding: TensorSpec;
  readonly layers: readonly LayerSpec[];
  readonly finalNorm: TensorSpec;
  /** The same object as `embedding` if the two are tied. */
  readonly lmHead: TensorSpec;
}

/** Every tensor that a model of this config has. */
export function decoderSpec(config: ModelConfig): DecoderSpec {
  const { hiddenSize, vocabSize } = config;
  const embedding = { name: "model.embed_tokens.weight", shape: [vocabSize, hiddenSize] };
  return {
    embedding,
    layers: Array.from({ length: config.numLayers }, (_, layer) => layerSpec(config, layer)),
    finalNorm: { name: "model.norm.weight", shape: [hiddenSize] },
    lmHead: config.tieWordEmbeddings
      ? embedding
      : { name: "lm_head.weight", shape: [vocabSize, hiddenSize] },
  };
}

function layerSpec(config: ModelConfig, layer: number): LayerSpec {
  const { hiddenSize, intermediateSize, headDim } = config;
  const queryWidth = config.numHeads * headDim;
  const keyWidth = config.numKvHeads * headDim;
  const tensor = (name: string, ...shape: number[]): TensorSpec => ({
    name: `model.layers.${layer}.${name}`,
    shape,
  });
  const linear = (name: string, n: number, k: number, bias: boolean): LinearSpec => ({
    weight: tensor(`${name}.weight`, n, k),
    bias: bias ? tensor(`${name}.bias`, n) : null,
  });
  return {
    inputNorm: tensor("input_layernorm.weight", hiddenSize),
    query: linear("self_attn.q_proj", queryWidth, hiddenSize, config.qkvBias),
    key: linear("self_attn.k_proj", keyWidth, hiddenSize, config.qkvBias),
    value: linear("self_attn.v_proj", keyWidth, hiddenSize, config.qkvBias),
    queryNorm: config.qkNorm ? tensor("self_attn.q_norm.weight", headDim) : null,
    keyNorm: config.qkNorm ? tensor("self_attn.k_norm.weight", headDim) : null,
    output: linear("self_attn.o_proj", hiddenSize, queryWidth, config.outputBias),
    postAttentionNorm: tensor("post_attention_layernorm.weight", hiddenSize),
    gate: linear("mlp.gate_proj", intermediateSize, hiddenSize, config.mlpBias),
    up: linear("mlp.up_proj", intermediateSize, hiddenSize, config.mlpBias),
    down: linear("mlp.down_proj", hiddenSize, intermediateSize, config.mlpBias),
  };
}

/** All tensors in the order of the forward pass, a tied head once. */
export function allTensors(spec: DecoderSpec): TensorSpec[] {
  const linear = ({ weight, bias }: LinearSpec) => bias ? [weight, bias] : [weight];
  return [
    spec.embedding,
    ...spec.layers.flatMap((layer) => [
      layer.inputNorm,
      ...linear(layer.query),
      ...linear(layer.key),
      ...linear(layer.value),
      ...(layer.queryNorm ? [layer.queryNorm] : []),
      ...(layer.keyNorm ? [layer.keyNorm] : []),
      ...linear(layer.output),
      layer.postAttentionNorm,
      ...linear(layer.gate),
      ...linear(layer.up),
      ...linear(layer.down),
    ]),
    spec.finalNorm,
    ...(spec.lmHead === spec.embedding ? [] : [spec.lmHead]),
  ];
}

/** Elements of a tensor. */
export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}
