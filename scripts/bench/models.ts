/** Models with random weights, and the sampling, of benchmarks of the CPU engine. */
import type { SamplingParams } from "../../src/core/protocol/generate.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";

/** A `config.json` as Hugging Face writes it. */
export type ModelConfigJson = Readonly<Record<string, unknown>>;

const common = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
  torch_dtype: "bfloat16",
};

/** The shape of SmolLM-135M. */
export const model135M: ModelConfigJson = {
  ...common,
  vocab_size: 49152,
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
};

/** The shape of Qwen2.5-0.5B. */
export const model05B: ModelConfigJson = {
  ...common,
  vocab_size: 151936,
  hidden_size: 896,
  intermediate_size: 4864,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
};

/** Greedy sampling that never ends a request. */
export const endless: SamplingParams = {
  ...samplingDefaults,
  maxTokens: 1 << 20,
  temperature: 0,
  seed: 0,
  eosTokenIds: [],
  ignoreEos: true,
};
