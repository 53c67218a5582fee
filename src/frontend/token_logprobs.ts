import type { TokenLogprobs } from "../core/protocol/generate.ts";
import type { TokenIds } from "../core/token_ids.ts";
import type { TextLogprob } from "./service.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * A token's log probabilities with texts.
 * @param tokenizer null without one: tokens are then named by id
 * @param textOffset characters of text before the token
 */
export function toTextLogprob(
  logprobs: TokenLogprobs,
  tokenizer: Tokenizer | null,
  textOffset: number,
): TextLogprob {
  const named = (tokenId: number, logprob: number | null) => {
    const token = tokenText(tokenId, tokenizer);
    const bytes = tokenizer?.display(tokenId).bytes ?? [];
    return { tokenId, token, bytes, logprob: logprob ?? -Infinity, textOffset };
  };
  return {
    ...named(logprobs.tokenId, logprobs.logprob),
    rank: logprobs.rank,
    top: logprobs.top.map(([tokenId, logprob]) => named(tokenId, logprob)),
  };
}

/** Text of one token alone; its id without a tokenizer. */
export function tokenText(tokenId: number, tokenizer: Tokenizer | null): string {
  return tokenizer?.display(tokenId).token ?? `token_id:${tokenId}`;
}

/** Log probabilities of a prompt's tokens, with offsets in the prompt's text. */
export function toPromptLogprobs(
  logprobs: readonly (TokenLogprobs | null)[],
  promptTokenIds: TokenIds,
  tokenizer: Tokenizer | null,
): (TextLogprob | null)[] {
  const text = tokenizer?.detokenizer({ skipSpecialTokens: false, promptTokenIds: [] });
  let offset = 0;
  return logprobs.map((logprob, position) => {
    const textOffset = offset;
    if (text) offset += codePoints(text.push(promptTokenIds[position]));
    return logprob && toTextLogprob(logprob, tokenizer, textOffset);
  });
}

/** Characters of a well-formed text. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let i = 0; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) count--;
  }
  return count;
}
