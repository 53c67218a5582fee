/**
 * A tokenizer that needs no training: one token per byte, token id = byte value, and five special
 * tokens. Written in the format of Hugging Face `tokenizers` (byte-level BPE without merges), so that
 * everything that reads a real model's tokenizer reads this one.
 */
import { byteCharacters } from "../core/byte_alphabet.ts";

/** Special tokens; their ids follow the 256 bytes. */
export const byteSpecialTokens = {
  bos: { id: 256, content: "<|bos|>" },
  eos: { id: 257, content: "<|eos|>" },
  pad: { id: 258, content: "<|pad|>" },
  imStart: { id: 259, content: "<|im_start|>" },
  imEnd: { id: 260, content: "<|im_end|>" },
} as const;

/** Tokens of the byte tokenizer: 256 bytes and the special tokens. */
export const byteVocabSize = 261;

const chatTemplate = "{{ bos_token }}{% for message in messages %}" +
  "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n" +
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/** Content of `tokenizer.json`. */
export function byteTokenizerJson(): Record<string, unknown> {
  const { bos } = byteSpecialTokens;
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: Object.values(byteSpecialTokens).map(({ id, content }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "ByteLevel",
      add_prefix_space: false,
      trim_offsets: true,
      use_regex: true,
    },
    post_processor: {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: bos.content, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
      ],
      pair: [
        { SpecialToken: { id: bos.content, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: {
        [bos.content]: { id: bos.content, ids: [bos.id], tokens: [bos.content] },
      },
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(byteCharacters().map((character, byte) => [character, byte])),
      merges: [],
    },
  };
}

/**
 * Content of `tokenizer_config.json`, with a ChatML template.
 * @param modelMaxLength longest sequence in tokens
 */
export function byteTokenizerConfig(modelMaxLength: number): Record<string, unknown> {
  const { bos, eos, pad } = byteSpecialTokens;
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: bos.content,
    eos_token: eos.content,
    pad_token: pad.content,
    model_max_length: modelMaxLength,
    clean_up_tokenization_spaces: false,
    chat_template: chatTemplate,
  };
}

/** Content of `generation_config.json`; it sets no sampling defaults. */
export function byteGenerationConfig(): Record<string, unknown> {
  const { bos, eos, pad, imEnd } = byteSpecialTokens;
  return {
    bos_token_id: bos.id,
    eos_token_id: [eos.id, imEnd.id],
    pad_token_id: pad.id,
  };
}
