/** Log probabilities in the forms of OpenAI's two APIs and of vLLM's `prompt_logprobs`. */
import type { TextLogprob } from "../frontend/service.ts";

/** OpenAI's number for "very unlikely": JSON has no -Infinity. */
const LOWEST_LOGPROB = -9999;

function finite(logprob: number): number {
  return Math.max(logprob, LOWEST_LOGPROB);
}

/** `logprobs` of a text completion; the arrays run in parallel over its tokens. */
export interface CompletionLogprobs {
  readonly text_offset: number[];
  readonly token_logprobs: (number | null)[];
  readonly tokens: string[];
  readonly top_logprobs: (Record<string, number> | null)[];
}

/**
 * @param offset characters of the completion before the output, i.e. of an echoed prompt
 * @param prompt log probabilities of an echoed prompt; the first token has none
 */
export function completionLogprobs(
  output: readonly TextLogprob[],
  offset: number,
  prompt: readonly (TextLogprob | null)[] = [],
  promptText = "",
): CompletionLogprobs {
  const result: CompletionLogprobs = {
    text_offset: [],
    token_logprobs: [],
    tokens: [],
    top_logprobs: [],
  };
  const append = (entry: TextLogprob, base: number) => {
    result.text_offset.push(base + entry.textOffset);
    result.token_logprobs.push(finite(entry.logprob));
    result.tokens.push(entry.token);
    result.top_logprobs.push(topLogprobs(entry));
  };
  prompt.forEach((entry, index) => {
    if (entry !== null) return append(entry, 0);
    const end = prompt[index + 1]?.textOffset ?? promptText.length;
    result.text_offset.push(0);
    result.token_logprobs.push(null);
    result.tokens.push(promptText.slice(0, end));
    result.top_logprobs.push(null);
  });
  for (const entry of output) append(entry, offset);
  return result;
}

/** By token text; the chosen token is there even if it is not among the best. */
function topLogprobs(entry: TextLogprob): Record<string, number> {
  // Tokens that are parts of characters may share a text: the likeliest, which comes first, stays.
  const byToken = new Map<string, number>();
  for (const { token, logprob } of [...entry.top, entry]) {
    if (!byToken.has(token)) byToken.set(token, finite(logprob));
  }
  return Object.fromEntries(byToken);
}

/** An element of `logprobs.content` of a chat choice. */
export function chatLogprob(entry: TextLogprob, topCount: number) {
  return {
    token: entry.token,
    logprob: finite(entry.logprob),
    bytes: entry.bytes,
    top_logprobs: entry.top.slice(0, topCount).map(({ token, logprob, bytes }) => ({
      token,
      logprob: finite(logprob),
      bytes,
    })),
  };
}

/** vLLM's `prompt_logprobs`: by token id, null for the first token. */
export function promptLogprobs(prompt: readonly (TextLogprob | null)[]) {
  return prompt.map((entry) => {
    if (entry === null) return null;
    const ranked = entry.top.map((other, index) => ({ ...other, rank: index + 1 }));
    return Object.fromEntries(
      [...ranked, entry].map(({ tokenId, token, logprob, rank }) => [
        tokenId,
        { logprob: finite(logprob), rank, decoded_token: token },
      ]),
    );
  });
}
