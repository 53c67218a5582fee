import {
  byteGenerationConfig,
  byteSpecialTokens,
  byteTokenizerConfig,
  byteTokenizerJson,
  byteVocabSize,
} from "./byte_tokenizer.ts";

/**
 * Name of the model that is served without `--model`. It tells short stories and does sums;
 * `scripts/default_model` made it.
 */
export const storyModelName = "llumnix-story";
/** Name of a model without files, for tests and tries. Its weights are random. */
export const tinyModelName = "llumnix-tiny";

/** The Hugging Face directory of `llumnix-story`: beside the sources, or in the executable's files. */
export function storyModelDirectory(): string {
  return decodeURIComponent(new URL(`./${storyModelName}`, import.meta.url).pathname);
}

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
 * `llumnix-tiny`: a tiny Llama over bytes with random weights. It needs no files and loads in
 * milliseconds; its output has no meaning.
 */
export function tinyModel(): BuiltinModel {
  const { bos, eos, imEnd } = byteSpecialTokens;
  return {
    name: tinyModelName,
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
