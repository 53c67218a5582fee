/** Tokenizers of test/fixtures/tokenizers, with what transformers does with them. */
import { createTokenizer, type Tokenizer } from "../../src/frontend/tokenizer.ts";

export interface Cases {
  /** Text, ids with special tokens, ids without. */
  readonly encode: readonly [text: string, withSpecial: number[], without: number[]][];
  /** Ids, text, text without special tokens. */
  readonly decode: readonly [ids: number[], text: string, skipped: string][];
  readonly chat?: readonly [
    messages: { role: string; content: string }[],
    addGenerationPrompt: boolean,
    text: string,
  ][];
}

export const fixtureNames = ["llama3", "qwen", "llama2", "mistral", "metaspace"] as const;

export type FixtureName = typeof fixtureNames[number];

const root = new URL("../fixtures/tokenizers/", import.meta.url);

// deno-lint-ignore no-explicit-any
export function readFixture(name: FixtureName, file: string): any {
  return JSON.parse(Deno.readTextFileSync(new URL(`${name}/${file}`, root)));
}

export function fixtureDirectory(name: FixtureName): string {
  return new URL(name, root).pathname;
}

export function fixtureTokenizer(name: FixtureName): Tokenizer {
  return createTokenizer({
    tokenizerJson: readFixture(name, "tokenizer.json"),
    tokenizerConfig: readFixture(name, "tokenizer_config.json"),
  });
}

export function fixtureCases(name: FixtureName): Cases {
  return readFixture(name, "cases.json");
}

/** Whether a token has text which is skipped with special tokens. */
export function isSpecial(tokenizer: Tokenizer, id: number): boolean {
  const [kept, skipped] = [false, true].map((skipSpecialTokens) =>
    tokenizer.decode([id], { skipSpecialTokens })
  );
  return kept !== "" && skipped === "";
}
