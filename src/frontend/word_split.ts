/**
 * SentencePiece-like BPE sees a whole text as one word, which costs n log n with large constants and
 * defeats the cache of words. Where no token of the vocabulary continues from one word into the next,
 * merges cannot either, and splitting before each run of spaces changes nothing but the time.
 */

const space = "▁";

interface Step {
  readonly type: string;
  readonly split?: boolean;
}

/**
 * The `pre_tokenizer` of a tokenizer.json, with a split into words added where that is exact.
 * @param json content of tokenizer.json
 */
export function splitIntoWords(json: Record<string, unknown>): unknown {
  const original = json.pre_tokenizer as Step | null;
  if (!splitsAtSpaces(json)) return original;
  const split = {
    type: "Split",
    pattern: { Regex: `(?<=[^${space}])(?=${space})` },
    behavior: "Isolated",
    invert: false,
  };
  return original === null ? split : { type: "Sequence", pretokenizers: [original, split] };
}

/** Whether {@linkcode splitIntoWords} adds its split. */
export function splitsAtSpaces(json: Readonly<Record<string, unknown>>): boolean {
  const original = json.pre_tokenizer as Step | null;
  const isWholeText = original === null ||
    (original.type === "Metaspace" && original.split === false);
  const model = json.model as { type?: string; vocab?: Record<string, number> };
  if (!isWholeText || model.type !== "BPE" || !model.vocab) return false;
  return !Object.keys(model.vocab).some(spansWords);
}

/** Whether a space follows another character within the token. */
function spansWords(token: string): boolean {
  const last = token.lastIndexOf(space);
  return last > 0 && !token.startsWith(space.repeat(last + 1));
}
