import { UsageError } from "../../core/errors.ts";

/**
 * The words of a command line, as a shell splits them: quotes keep spaces, a backslash keeps the next
 * character.
 * @throws {UsageError} a quote that does not end
 */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | null = null, quote: string | null = null;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "\\" && quote !== "'" && i + 1 < text.length) word = (word ?? "") + text[++i];
    else if (character === quote) quote = null;
    else if (quote === null && (character === '"' || character === "'")) {
      quote = character;
      word ??= "";
    } else if (quote === null && /\s/.test(character)) {
      if (word !== null) words.push(word);
      word = null;
    } else word = (word ?? "") + character;
  }
  if (quote !== null) throw new UsageError(`a quote (${quote}) does not end in: ${text}`);
  return word === null ? words : [...words, word];
}
