/**
 * Encodes a text in segments whose ids, joined, are those of the whole. A segment is an added token, or
 * text between added tokens that is cut further where that is exact (`inner_cuts.ts`). The cuts depend on
 * the text before them alone, so two texts that begin alike have the same first segments.
 */
import { SequenceNormalizer, type Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { type HubInternals, internalsOf } from "./hub_internals.ts";
import { allowsInnerCuts } from "./inner_cuts.ts";
import { LONG_WORD, LongWordEncoder } from "./long_word.ts";

/**
 * Where text stands, as far as it matters: at the beginning of everything, behind an added token, or behind
 * a cut. Where it does not matter, all is `inner`.
 */
export type Place = "first" | "section" | "inner";

export interface TextSegment {
  readonly text: string;
  readonly place: Place;
}

/** The id of an added token, or text. */
export type Segment = number | TextSegment;

/** Characters after which a cut is looked for; encoding as many takes about 2 ms. */
const SEGMENT_LENGTH = 2048;

/** A cut lies behind the matched letter. */
const cutPattern = /[A-Za-z](?= [A-Za-z])/g;

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

  /** Cuts a text. Takes about 3 ms for 100,000 tokens. */
  split(text: string): Segment[] {
    if (!this.#canBeSplit()) return text === "" ? [] : [{ text, place: "first" }];
    const segments: Segment[] = [];
    for (const section of this.#sections(text)) {
      if (typeof section === "number") segments.push(section);
      else this.#cut(section, segments);
    }
    return segments;
  }

  /** Ids of a segment. A character that the vocabulary cannot express has no id and is left out. */
  encode({ text, place }: TextSegment): number[] {
    const { added_tokens_map, model } = this.#hub;
    const tokens = this.#tokens(text, place);
    const ids: number[] = [];
    for (const token of tokens) {
      const id = added_tokens_map.get(token)?.id ?? model.tokens_to_ids.get(token) ??
        model.unk_token_id;
      if (id !== undefined) ids.push(id);
    }
    return ids;
  }

  /** The ids of a whole text: those of its segments, with the special tokens that belong around them. */
  join(parts: readonly (number | ArrayLike<number>)[], addSpecialTokens: boolean): number[] {
    const ids: number[] = addSpecialTokens ? [...this.#around.before] : [];
    for (const part of parts) {
      if (typeof part === "number") ids.push(part);
      else for (let i = 0; i < part.length; i++) ids.push(part[i]);
    }
    if (addSpecialTokens) ids.push(...this.#around.after);
    return ids;
  }

  /** Two settings of old tokenizers change the text in ways that only the library knows. */
  #canBeSplit(): boolean {
    return !this.#hub.remove_space && !this.#hub.do_lowercase_and_remove_accent;
  }

  /** The text between added tokens, and their ids; tokens that strip take white space of the text. */
  *#sections(text: string): Generator<Segment> {
    const pattern = this.#addedTokens;
    if (pattern === null) {
      if (text !== "") yield this.#section(text, true);
      return;
    }
    let start = 0;
    let stripsStart = false;
    for (const match of text.matchAll(pattern)) {
      const token = this.#hub.added_tokens_map.get(match[0])!;
      yield* between(start, match.index, stripsStart, token.lstrip, this);
      yield token.id;
      start = match.index + match[0].length;
      stripsStart = token.rstrip;
    }
    yield* between(start, text.length, stripsStart, false, this);

    function* between(
      from: number,
      to: number,
      stripsStart: boolean,
      stripsEnd: boolean,
      encoder: SegmentEncoder,
    ): Generator<Segment> {
      let part = text.slice(from, to);
      if (stripsStart) part = part.trimStart();
      if (stripsEnd) part = part.trimEnd();
      if (part !== "") yield encoder.#section(part, from === 0);
    }
  }

  #section(text: string, isFirst: boolean): TextSegment {
    return { text, place: this.#placeMatters ? (isFirst ? "first" : "section") : "inner" };
  }

  #cut({ text, place }: TextSegment, segments: Segment[]): void {
    let start = 0;
    while (this.#allowsCuts && text.length - start > SEGMENT_LENGTH) {
      cutPattern.lastIndex = start + SEGMENT_LENGTH;
      const match = cutPattern.exec(text);
      if (match === null) break;
      const end = match.index + 1;
      segments.push({ text: text.slice(start, end), place: start === 0 ? place : "inner" });
      start = end;
    }
    segments.push({ text: text.slice(start), place: start === 0 ? place : "inner" });
  }

  #tokens(text: string, place: Place): string[] {
    const hub = this.#hub;
    if (!this.#canBeSplit()) {
      return (hub as unknown as { encode_text(text: string): string[] }).encode_text(text);
    }
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
