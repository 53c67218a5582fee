/**
 * Encodes a text in segments whose ids, joined, are the ids of the whole text: it is cut before added tokens, and
 * within text where that is exact (`inner_cuts.ts`). The cuts depend on the text before them alone, so two
 * texts that begin alike have the same first segments.
 */
import { SequenceNormalizer, type Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { type HubAddedToken, type HubInternals, internalsOf } from "./hub_internals.ts";
import { allowsInnerCuts } from "./inner_cuts.ts";
import { LONG_WORD, LongWordEncoder } from "./long_word.ts";

/**
 * Where a segment begins, as far as it matters: at the beginning of everything, at an added token, or within
 * text. Where it does not matter, every segment is `inner`.
 */
export type Place = "first" | "section" | "inner";

export interface Segment {
  readonly text: string;
  readonly place: Place;
}

/** Characters after which a cut is looked for; encoding as many takes about 2 ms. */
const SEGMENT_LENGTH = 2048;

/** Finds the places within a text where it may be cut; asked from the left to the right. */
class InnerCuts {
  readonly #pattern = /[A-Za-z](?= [A-Za-z])/g;
  #cut = -1;

  /** @param text empty to find none */
  constructor(private readonly text: string) {}

  /** The first cut at or behind `from`, if both its sides are before `to`; else null. */
  next(from: number, to: number): number | null {
    if (this.#cut < from && from < this.text.length) {
      this.#pattern.lastIndex = from - 1;
      const match = this.#pattern.exec(this.text);
      this.#cut = match === null ? Infinity : match.index + 1;
    }
    return this.#cut >= from && this.#cut + 2 <= to ? this.#cut : null;
  }
}

export class SegmentEncoder {
  readonly #hub: HubInternals;
  readonly #innerNormalizer: ((text: string) => string) | null;
  readonly #allowsCuts: boolean;
  readonly #placeMatters: boolean;
  /** Matches every added token that is looked for in the text as it is; null when there is none. */
  readonly #addedTokens: RegExp | null;
  /** Ids that the post-processor puts before and behind the text. */
  readonly #around: { readonly before: readonly number[]; readonly after: readonly number[] };

  /** @param json tokenizer.json, with its defaults */
  constructor(json: Readonly<Record<string, unknown>>, hub: HubTokenizer) {
    this.#hub = internalsOf(hub);
    const { model, added_tokens } = this.#hub;
    encodeLongWordsApart(model, json.model as ModelJson);
    this.#allowsCuts = this.#canBeSplit() &&
      allowsInnerCuts(json, model.tokens_to_ids, added_tokens);
    const normalizer = json.normalizer as NormalizerJson | null;
    const preTokenizer = JSON.stringify(json.pre_tokenizer);
    this.#placeMatters = hasPrepend(normalizer) ||
      /Metaspace|"add_prefix_space":true/.test(preTokenizer);
    this.#innerNormalizer = withoutPrepend(normalizer, this.#hub.normalizer);
    this.#addedTokens = patternOf(
      added_tokens.filter((token) => !token.normalized || this.#hub.normalizer === null),
    );
    this.#around = this.#specialTokens();
  }

  /** Cuts a text into segments of about {@linkcode SEGMENT_LENGTH}. Takes about 3 ms for 100,000 tokens. */
  split(text: string): Segment[] {
    const segments: Segment[] = [];
    let start = 0, place: Place = this.#placeMatters ? "first" : "inner";
    const cutAt = (end: number, next: Place) => {
      segments.push({ text: text.slice(start, end), place });
      [start, place] = [end, this.#placeMatters ? next : "inner"];
    };
    const cuts = new InnerCuts(this.#allowsCuts ? text : "");
    for (const [from, to, token] of this.#sections(text)) {
      for (
        let cut = cuts.next(Math.max(from, start + SEGMENT_LENGTH), to);
        cut !== null;
        cut = cuts.next(start + SEGMENT_LENGTH, to)
      ) cutAt(cut, "inner");
      const isCut = this.#canBeSplit() && token !== null && !token.lstrip;
      if (isCut && to - start >= SEGMENT_LENGTH) cutAt(to, "section");
    }
    if (start < text.length) cutAt(text.length, "section");
    return segments;
  }

  /** Ids of a segment. A character that the vocabulary cannot express has no id and is left out. */
  encode({ text, place }: Segment): number[] {
    const ids: number[] = [];
    if (!this.#canBeSplit()) return this.#appendIds(this.#hub.encode_text(text), ids);
    let stripsStart = false;
    for (const [from, to, token] of this.#sections(text)) {
      let part = text.slice(from, to);
      if (stripsStart) part = part.trimStart();
      if (token?.lstrip) part = part.trimEnd();
      if (part !== "") this.#appendIds(this.#tokens(part, from === 0 ? place : "section"), ids);
      if (token === null) break;
      ids.push(token.id);
      stripsStart = token.rstrip;
    }
    return ids;
  }

  /** Joins the ids of all segments, and adds the special tokens of the post-processor around them. */
  join(parts: readonly ArrayLike<number>[], addSpecialTokens: boolean): Uint32Array<ArrayBuffer> {
    const all = addSpecialTokens ? [this.#around.before, ...parts, this.#around.after] : parts;
    const ids = new Uint32Array(all.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of all) {
      ids.set(part, at);
      at += part.length;
    }
    return ids;
  }

  /** Two settings of old tokenizers change the text in ways that only the library knows. */
  #canBeSplit(): boolean {
    return !this.#hub.remove_space && !this.#hub.do_lowercase_and_remove_accent;
  }

  /** Ranges of text, each with the added token that follows it; null behind the last. */
  *#sections(text: string): Generator<[from: number, to: number, token: HubAddedToken | null]> {
    let from = 0;
    if (this.#addedTokens !== null) {
      for (const { 0: content, index } of text.matchAll(this.#addedTokens)) {
        yield [from, index, this.#hub.added_tokens_map.get(content)!];
        from = index + content.length;
      }
    }
    yield [from, text.length, null];
  }

  #appendIds(tokens: readonly string[], ids: number[]): number[] {
    const { added_tokens_map, model } = this.#hub;
    for (const token of tokens) {
      const id = added_tokens_map.get(token)?.id ?? model.tokens_to_ids.get(token) ??
        model.unk_token_id;
      if (id !== undefined) ids.push(id);
    }
    return ids;
  }

  #tokens(text: string, place: Place): string[] {
    const hub = this.#hub;
    const normalize = place === "inner" ? this.#innerNormalizer : hub.normalizer;
    const normalized = normalize === null ? text : normalize(text);
    if (normalized === "") return [];
    const parts = hub.splitter_normalized.split(normalized);
    for (const [i, part] of parts.entries()) {
      const token = hub.added_tokens_map.get(part);
      if (token?.lstrip && i > 0) parts[i - 1] = parts[i - 1].trimEnd();
      if (token?.rstrip && i < parts.length - 1) parts[i + 1] = parts[i + 1].trimStart();
    }
    const section_index = place === "first" ? 0 : 1;
    const tokens: string[] = [];
    for (const part of parts) {
      if (part === "") continue;
      if (hub.added_tokens_map.has(part)) {
        tokens.push(part);
        continue;
      }
      const words = hub.pre_tokenizer === null
        ? [part]
        : hub.pre_tokenizer(part, { section_index });
      for (const token of hub.model(words)) tokens.push(token);
    }
    return tokens;
  }

  #specialTokens(): { before: number[]; after: number[] } {
    const { post_processor, added_tokens_map, model } = this.#hub;
    const content = "\u0000";
    const tokens = post_processor?.([content], null, true).tokens ?? [content];
    const at = tokens.indexOf(content);
    const idsOf = (part: string[]) =>
      part.map((token) => added_tokens_map.get(token)?.id ?? model.tokens_to_ids.get(token))
        .filter((id) => id !== undefined);
    return { before: idsOf(tokens.slice(0, at)), after: idsOf(tokens.slice(at + 1)) };
  }
}

interface ModelJson {
  readonly merges?: readonly (string | readonly [string, string])[];
  readonly end_of_word_suffix?: string | null;
  readonly continuing_subword_suffix?: string | null;
}

/** The library keeps short words; their tables are made when the first long word comes. */
function encodeLongWordsApart(model: HubInternals["model"], json: ModelJson): void {
  const { bpe } = model;
  const { merges, end_of_word_suffix, continuing_subword_suffix } = json;
  if (bpe === undefined || merges === undefined) return;
  if (end_of_word_suffix || continuing_subword_suffix) return;
  let longWords: LongWordEncoder | null = null;
  model.bpe = (word) => {
    if (word.length < LONG_WORD) return bpe.call(model, word);
    longWords ??= new LongWordEncoder(merges);
    return longWords.encode(word);
  };
}

/** The longest of the tokens that match at a place is found, as by the library's trie. */
function patternOf(tokens: readonly { readonly content: string }[]): RegExp | null {
  if (tokens.length === 0) return null;
  const longestFirst = tokens.map(({ content }) => content).toSorted((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map((text) => RegExp.escape(text)).join("|"), "g");
}

interface NormalizerJson {
  readonly type: string;
  readonly normalizers?: readonly NormalizerJson[];
}

function hasPrepend(json: NormalizerJson | null): boolean {
  return json?.type === "Prepend" || (json?.normalizers ?? []).some(hasPrepend);
}

/** The normalizer of text that is not at the beginning of a section. */
function withoutPrepend(
  json: NormalizerJson | null,
  whole: ((text: string) => string) | null,
): ((text: string) => string) | null {
  if (!hasPrepend(json)) return whole;
  const normalizers = (json!.normalizers ?? []).filter(({ type }) => type !== "Prepend");
  type Config = ConstructorParameters<typeof SequenceNormalizer>[0];
  const normalizer = new SequenceNormalizer({ type: "Sequence", normalizers } as Config);
  return (text) => normalizer.normalize(text);
}
