import {
  byteGenerationConfig,
  byteSpecialTokens,
  byteTokenizerConfig,
  byteTokenizerJson,
  byteVocabSize,
} from "./byte_tokenizer.ts";

/** The parts of a Hugging Face model directory, in memory; weights are random, from the seed. */
export interface BuiltinModel {
  readonly name: string;
  /** `config.json` */
  readonly config: Record<string, unknown>;
  /** `tokenizer.json` */
  readonly tokenizerJson: Record<string, unknown>;
  /** `tokenizer_config.json`, with the chat template */
  readonly tokenizerConfig: Record<string, unknown>;
  /** `generation_config.json` */
  readonly generationConfig: Record<string, unknown>;
}

const maxPositionEmbeddings = 4096;

/**
 * The model that is served without `--model`: a tiny Llama over bytes with random weights. It needs no
 * files and loads in milliseconds; its output has no meaning.
 */
export function builtinModel(): BuiltinModel {
  const { bos, eos, imEnd } = byteSpecialTokens;
  return {
    name: "llumnix-tiny",
    config: {
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      vocab_size: byteVocabSize,
      hidden_size: 64,
      intermediate_size: 192,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      hidden_act: "silu",
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      max_position_embeddings: maxPositionEmbeddings,
      tie_word_embeddings: false,
      bos_token_id: bos.id,
      eos_token_id: [eos.id, imEnd.id],
      torch_dtype: "float32",
    },
    tokenizerJson: byteTokenizerJson(),
    tokenizerConfig: byteTokenizerConfig(maxPositionEmbeddings),
    generationConfig: byteGenerationConfig(),
  };
}
