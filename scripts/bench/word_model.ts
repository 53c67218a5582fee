/** A model directory for benchmarks of text: weights are dummies, a word of its language is one token. */
import { Random } from "../../src/core/random.ts";
import { tinyModel } from "../../src/model/builtin.ts";

/** Five letters and a space a token, about as many characters as English has with a large vocabulary. */
const WORD_LETTERS = 4;
const NUM_WORDS = 5_000;

export interface WordModel extends Disposable {
  readonly directory: string;
  /** So many words: one token each, but for the first. */
  text(words: number, random: Random): string;
}

/** The words of the language, always the same. */
export function makeWords(): readonly string[] {
  const random = new Random(1);
  const letter = () => String.fromCharCode(97 + random.below(26));
  return Array.from(
    { length: NUM_WORDS },
    () => Array.from({ length: WORD_LETTERS }, letter).join(""),
  );
}

/** A text of `count` words, each drawn at random from `words`. */
export function wordText(words: readonly string[], count: number, random: Random): string {
  return Array.from({ length: count }, () => words[random.below(words.length)]).join(" ");
}

/** @param maxModelLen longest sequence in tokens */
export function makeWordModel(maxModelLen: number): WordModel {
  const words = makeWords();
  const { config, tokenizerJson, tokenizerConfig, generationConfig } = tinyModel();
  const { vocab, merges } = withWords(tokenizerJson, words);
  const model = { ...tokenizerJson.model as object, vocab, merges, ignore_merges: true };
  const directory = Deno.makeTempDirSync({ prefix: "llumnix-bench-" });
  const write = (name: string, content: object) =>
    Deno.writeTextFileSync(`${directory}/${name}`, JSON.stringify(content));
  write("config.json", {
    ...config,
    vocab_size: 2 ** 16,
    max_position_embeddings: maxModelLen,
  });
  write("tokenizer.json", { ...tokenizerJson, model });
  write("tokenizer_config.json", { ...tokenizerConfig, model_max_length: maxModelLen });
  write("generation_config.json", generationConfig);
  return {
    directory,
    text: (count, random) => wordText(words, count, random),
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}

/** Adds a token for each word behind a space, and the merges that make it of its characters. */
function withWords(json: Record<string, unknown>, words: readonly string[]) {
  const { vocab } = json.model as { vocab: Record<string, number> };
  const ids = new Map(Object.entries(vocab));
  const merges = new Set<string>();
  let nextId = ids.size + (json.added_tokens as unknown[]).length;
  for (const word of words) {
    let token = "Ġ"; // the space of the byte alphabet
    for (const letter of word) {
      merges.add(`${token} ${letter}`);
      token += letter;
      if (!ids.has(token)) ids.set(token, nextId++);
    }
  }
  return { vocab: Object.fromEntries(ids), merges: [...merges] };
}
