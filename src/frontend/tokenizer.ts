import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { ModelError } from "../core/errors.ts";
import { toArray, type TokenIds } from "../core/token_ids.ts";
import { ChatTemplate, selectChatTemplate } from "./chat_template.ts";
import { Detokenizer } from "./detokenizer.ts";
import { SegmentEncoder } from "./encoding/segment_encoder.ts";
import { parseDecoder } from "./token_decoding.ts";
import { type TokenDisplay, TokenTable } from "./token_table.ts";
import { splitIntoWords } from "./word_split.ts";

/** Contents of the tokenizer files of a Hugging Face model directory. */
export interface TokenizerFiles {
  /** tokenizer.json */
  readonly tokenizerJson: Record<string, unknown>;
  /** tokenizer_config.json */
  readonly tokenizerConfig: Record<string, unknown>;
  /** chat_template.jinja; it comes before tokenizer_config.json's `chat_template`. */
  readonly chatTemplate?: string;
}

/** Where a tokenizer came from, so that a worker can make the same one. */
export type TokenizerSource = { readonly directory: string } | { readonly files: TokenizerFiles };

export interface DecodeOptions {
  readonly skipSpecialTokens: boolean;
}

/** Text to tokens and back. */
export interface Tokenizer {
  readonly source: TokenizerSource;
  /** One more than the largest token id. */
  readonly vocabSize: number;
  readonly eosTokenId: number | null;
  /** Null when the model has none. */
  readonly chatTemplate: ChatTemplate | null;
  /** For encoding in pieces; joined, they are what `encode` gives. */
  readonly segments: SegmentEncoder;
  /**
   * Encodes all of a text at once, which takes about 3 us a token.
   * @param options.addSpecialTokens let the model's post-processor add its tokens (bos)
   */
  encode(text: string, options: { readonly addSpecialTokens: boolean }): number[];
  /** A lower bound of the tokens of `text`, far cheaper than encoding it. */
  leastTokens(text: string): number;
  /**
   * Text of a whole sequence. There is no option `spacesBetweenSpecialTokens`: decoding never adds spaces, as
   * in transformers' fast tokenizers, whose format tokenizer.json is.
   */
  decode(ids: TokenIds, options: DecodeOptions): string;
  /** Makes the decoder of an output that follows `promptTokenIds`. */
  detokenizer(options: DecodeOptions & { promptTokenIds: TokenIds }): Detokenizer;
  /** One token by itself, special or not; empty for an unknown id. */
  display(id: number): TokenDisplay;
}

/** Longest canonical composition: four characters to one (Unicode 5.18, Greek with three marks). */
const mostCharactersComposed = 4;

/**
 * Makes a tokenizer of file contents.
 * @throws {ModelError} contents that are incomplete or of an unsupported kind
 */
export function createTokenizer(
  files: TokenizerFiles,
  source: TokenizerSource = { files },
): Tokenizer {
  const json = withDefaults(files.tokenizerJson);
  const decoding = parseDecoder(json.decoder);
  const hub = createHubTokenizer(json, files.tokenizerConfig);
  const tokens = tokenStrings(json, hub);
  const special = specialTokenIds(json, files.tokenizerConfig, hub);
  const keeping = new TokenTable(decoding, tokens, new Set());
  const skipping = new TokenTable(decoding, tokens, special);
  const template = selectChatTemplate(files.chatTemplate ?? files.tokenizerConfig.chat_template);
  const longestToken = tokens.reduce((longest, token) => Math.max(longest, token?.length ?? 0), 1);
  const mostCharactersPerToken = longestToken * (json.normalizer ? mostCharactersComposed : 1);

  const segments = new SegmentEncoder(json, hub);

  return {
    source,
    segments,
    vocabSize: tokens.length,
    eosTokenId: tokenId(hub, files.tokenizerConfig.eos_token),
    chatTemplate: template === null ? null : new ChatTemplate(
      template,
      specialTokenTexts(files.tokenizerConfig),
      files.chatTemplate === undefined
        ? "chat_template of tokenizer_config.json"
        : "chat_template.jinja",
    ),
    encode(text, { addSpecialTokens }) {
      const parts = segments.split(text.toWellFormed());
      return toArray(segments.join(parts.map((part) => segments.encode(part)), addSpecialTokens));
    },
    leastTokens: (text) => Math.ceil(text.length / mostCharactersPerToken),
    decode(ids, { skipSpecialTokens }) {
      const detokenizer = new Detokenizer(skipSpecialTokens ? skipping : keeping);
      let text = "";
      for (const id of ids) text += detokenizer.push(id);
      return text + detokenizer.flush();
    },
    detokenizer: ({ skipSpecialTokens, promptTokenIds }) =>
      new Detokenizer(skipSpecialTokens ? skipping : keeping, promptTokenIds),
    display: (id) => keeping.display(id),
  };
}

/**
 * Loads the tokenizer of a model directory.
 * @param chatTemplate to use instead of the directory's
 * @throws {ModelError} no tokenizer.json, or one that cannot be used
 */
export async function loadTokenizer(
  directory: string,
  chatTemplate?: string,
): Promise<Tokenizer> {
  const [json, config, ownTemplate] = await Promise.all([
    readText(`${directory}/tokenizer.json`),
    readText(`${directory}/tokenizer_config.json`),
    readText(`${directory}/chat_template.jinja`),
  ]);
  if (json === undefined) {
    throw new ModelError(
      `${directory} has no tokenizer.json. Text needs a tokenizer in Hugging Face's "fast" format: ` +
        `pass the directory of one by --tokenizer, or serve token ids with --skip-tokenizer-init.`,
    );
  }
  const files = {
    tokenizerJson: parseJson(json, `${directory}/tokenizer.json`),
    tokenizerConfig: parseJson(config ?? "{}", `${directory}/tokenizer_config.json`),
    chatTemplate: chatTemplate ?? ownTemplate,
  };
  try {
    return createTokenizer(files, { directory });
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    throw new ModelError(`In ${directory}: ${error.message}`, { cause: error });
  }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new ModelError(`${path} cannot be read: ${(error as Error).message}.`, { cause: error });
  }
}

function parseJson(text: string, path: string): Record<string, unknown> {
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  } catch (error) {
    throw new ModelError(`${path} is not valid JSON: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  throw new ModelError(`${path} is not a JSON object.`);
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

interface TokenizerJson extends Record<string, unknown> {
  readonly added_tokens: readonly AddedToken[];
}

function withDefaults(json: Record<string, unknown>): TokenizerJson {
  if (typeof json.model !== "object" || json.model === null) {
    throw new ModelError("tokenizer.json has no model; is it a Hugging Face tokenizer?");
  }
  return {
    ...json,
    added_tokens: (json.added_tokens ?? []) as AddedToken[],
    normalizer: json.normalizer ?? null,
    pre_tokenizer: json.pre_tokenizer ?? null,
    post_processor: json.post_processor ?? null,
    decoder: json.decoder ?? null,
  };
}

function createHubTokenizer(json: TokenizerJson, config: Record<string, unknown>): HubTokenizer {
  try {
    return new HubTokenizer({ ...json, pre_tokenizer: splitIntoWords(json) }, config);
  } catch (error) {
    throw new ModelError(`tokenizer.json cannot be used: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}

/** Token strings by id. */
function tokenStrings(json: TokenizerJson, hub: HubTokenizer): (string | undefined)[] {
  const vocab = hub.model?.vocab ?? [];
  const size = json.added_tokens.reduce((size, { id }) => Math.max(size, id + 1), vocab.length);
  return Array.from({ length: size }, (_, id) => vocab[id]);
}

/** Ids left out when special tokens are skipped: flagged in tokenizer.json or named in the config. */
function specialTokenIds(
  json: TokenizerJson,
  config: Record<string, unknown>,
  hub: HubTokenizer,
): Set<number> {
  const ids = new Set(json.added_tokens.filter((token) => token.special).map(({ id }) => id));
  const named = [
    ...Object.values(specialTokenTexts(config)),
    ...(config.additional_special_tokens as unknown[] | undefined ?? []),
  ];
  for (const token of named) {
    const id = tokenId(hub, token);
    if (id !== null) ids.add(id);
  }
  return ids;
}

const specialTokenNames = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/** The special tokens that tokenizer_config.json names, as chat templates see them. */
function specialTokenTexts(config: Record<string, unknown>): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const name of specialTokenNames) {
    const text = tokenContent(config[name]);
    if (text !== null) texts[name] = text;
  }
  return texts;
}

/** A token is written as text or as an object with `content`. */
function tokenContent(token: unknown): string | null {
  if (typeof token === "string") return token;
  const content = (token as { content?: unknown } | null | undefined)?.content;
  return typeof content === "string" ? content : null;
}

function tokenId(hub: HubTokenizer, token: unknown): number | null {
  const content = tokenContent(token);
  return content === null ? null : hub.token_to_id(content) ?? null;
}
