/**
 * Decides whether a tokenizer may be given a long text in pieces that are cut between an ASCII letter and a
 * space that another ASCII letter follows. That is exact if no step of the tokenizer looks across the cut.
 */
import { splitsAtSpaces } from "../word_split.ts";
import type { HubAddedToken } from "./hub_internals.ts";

interface Step {
  readonly type: string;
  readonly pattern?: { readonly Regex?: string };
  readonly behavior?: string;
  readonly invert?: boolean;
  readonly use_regex?: boolean;
  readonly add_prefix_space?: boolean;
  readonly pretokenizers?: readonly Step[];
  readonly normalizers?: readonly Step[];
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
const lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const spaces = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/**
 * Word patterns in which a run of letters never extends over a space, a space before a letter always begins
 * a word, and nothing looks back. With one of these, both sides of a cut are split as they are in the whole.
 */
const wordPatterns: ReadonlySet<string> = new Set([
  // GPT-2
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  // Llama 3 (cl100k_base), Qwen 2 and 3
  ...["\\p{N}{1,3}", "\\p{N}"].map((digits) =>
    `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${spaces}`
  ),
  // GPT-4o (o200k_base)
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+${contractions}?|` +
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*${contractions}?|` +
  `\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${spaces}`,
]);

/** Normalizers that treat the text before and after such a space apart. */
const localNormalizers: ReadonlySet<string> = new Set([
  "NFC",
  "NFD",
  "NFKC",
  "NFKD",
  "Lowercase",
  "Prepend",
]);

/**
 * @param json tokenizer.json, with its defaults
 * @param vocabulary all tokens
 * @param addedTokens of the tokenizer
 */
export function allowsInnerCuts(
  json: Readonly<Record<string, unknown>>,
  vocabulary: ReadonlyMap<string, unknown>,
  addedTokens: readonly HubAddedToken[],
): boolean {
  const model = json.model as { type?: string; fuse_unk?: boolean; byte_fallback?: boolean };
  if (model.type !== "BPE") return false;
  // An unknown letter would be fused with an unknown character beyond the cut.
  if (model.fuse_unk) {
    const known = (letter: string) =>
      vocabulary.has(letter) || model.byte_fallback && vocabulary.has(byteToken(letter));
    if (!asciiLetters.every(known)) return false;
  }
  const spanning = addedTokens.filter(({ normalized, rstrip }) => normalized && rstrip);
  if (spanning.length > 0 || addedTokens.some(({ content }) => /[a-z] [a-z]/i.test(content))) {
    return false;
  }
  const normalizer = json.normalizer as Step | null;
  if (!stepsOf(normalizer).every(isLocalNormalizer)) return false;
  return splitsWords(json);
}

const asciiLetters = [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"];

function byteToken(letter: string): string {
  return `<0x${letter.charCodeAt(0).toString(16).toUpperCase()}>`;
}

function isLocalNormalizer(step: Step): boolean {
  if (localNormalizers.has(step.type)) return true;
  const replaced = (step.pattern as { String?: string } | undefined)?.String;
  return step.type === "Replace" && replaced === " ";
}

function splitsWords(json: Readonly<Record<string, unknown>>): boolean {
  if (splitsAtSpaces(json)) return true;
  const steps = stepsOf(json.pre_tokenizer as Step | null);
  let hasWords = false;
  for (const step of steps) {
    if (step.type === "ByteLevel") {
      if (step.add_prefix_space) return false;
      hasWords ||= step.use_regex !== false;
    } else if (step.type === "Split") {
      const isKnown = wordPatterns.has(step.pattern?.Regex ?? "");
      if (!isKnown || step.invert || step.behavior !== "Isolated") return false;
      hasWords = true;
    } else if (step.type !== "Digits") {
      return false;
    }
  }
  return hasWords;
}

function stepsOf(step: Step | null): readonly Step[] {
  if (step === null) return [];
  if (step.type !== "Sequence") return [step];
  return (step.pretokenizers ?? step.normalizers ?? []).flatMap(stepsOf);
}
