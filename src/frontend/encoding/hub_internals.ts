import type { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";

/** An added token of tokenizer.json, as @huggingface/tokenizers keeps it. */
export interface HubAddedToken {
  readonly id: number;
  readonly content: string;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
}

/**
 * The steps of `encode` in @huggingface/tokenizers 0.2.0, some of which its types call private. Encoding a
 * prompt in pieces needs them one by one; `segment_encoder_test.ts` compares the result with `encode`.
 */
export interface HubInternals {
  encode_text(text: string): string[];
  readonly added_tokens: readonly HubAddedToken[];
  /** By content, and by normalized content. */
  readonly added_tokens_map: ReadonlyMap<string, HubAddedToken>;
  readonly splitter_normalized: { split(text: string): string[] };
  readonly normalizer: ((text: string) => string) | null;
  readonly pre_tokenizer:
    | ((text: string, options: { section_index: number }) => string[])
    | null;
  readonly model: ((words: readonly string[]) => string[]) & {
    readonly tokens_to_ids: ReadonlyMap<string, number>;
    readonly unk_token_id?: number;
    bpe?: (word: string) => string[];
  };
  readonly post_processor:
    | ((tokens: readonly string[], pair: null, addSpecialTokens: boolean) => { tokens: string[] })
    | null;
  readonly remove_space?: boolean;
  readonly do_lowercase_and_remove_accent: boolean;
}

export function internalsOf(hub: HubTokenizer): HubInternals {
  return hub as unknown as HubInternals;
}
