/** Log probabilities in the forms of OpenAI's two APIs and of vLLM's `prompt_logprobs`. */
import type { TextHandle, TextLogprob } from "../frontend/service.ts";

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

/** A token of a completion; the first token of a prompt has no log probability. */
type ScoredToken = TextLogprob | Pick<TextLogprob, "token" | "textOffset">;

/**
 * @param prompt tokens of an echoed prompt
 * @param outputOffset characters of the completion before the output
 */
export function completionLogprobs(
  prompt: readonly ScoredToken[],
  output: readonly ScoredToken[],
  outputOffset: number,
): CompletionLogprobs {
  const all = [...prompt, ...output];
  const offsets = [
    ...prompt.map((entry) => entry.textOffset),
    ...output.map((entry) => outputOffset + entry.textOffset),
  ];
  return {
    text_offset: offsets,
    token_logprobs: all.map((entry) => "logprob" in entry ? finite(entry.logprob) : null),
    tokens: all.map((entry) => entry.token),
    top_logprobs: all.map((entry) => "logprob" in entry ? topLogprobs(entry) : null),
  };
}

/**
 * Tokens of an echoed prompt, with offsets in its text. The text of the first is what the prompt has
 * before the second; a special token that the text lacks takes no room.
 */
export function echoedTokens(
  { promptText, firstToken }: Pick<TextHandle, "promptText" | "firstToken">,
  prompt: readonly (TextLogprob | null)[],
): ScoredToken[] {
  const characters = [...promptText];
  const second = prompt[1] ?? { token: "", textOffset: characters.length };
  const isFirstInText = characters.slice(second.textOffset).join("").startsWith(second.token);
  const missing = isFirstInText ? 0 : second.textOffset;
  const inText = isFirstInText ? characters.slice(0, second.textOffset).join("") : "";
  return prompt.map((entry) =>
    entry === null
      ? { token: inText || firstToken, textOffset: 0 }
      : { ...entry, textOffset: entry.textOffset - missing }
  );
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

/** vLLM's form: by token id; null for the first token of a prompt. */
export function logprobsById(prompt: readonly (TextLogprob | null)[]) {
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
