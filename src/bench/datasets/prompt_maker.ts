/** Makes texts of a given number of tokens, for a tokenizer that only counts. */
import type { Random } from "../../core/random.ts";
import type { TokenCounter } from "../token_counter.ts";

/** Common words, which most vocabularies have as one token each, and short ones for byte tokenizers. */
const words = ("a I as at be by do go he if in is it me my no of on or so to up us we " +
  "all and any are big but can day did end few for get had has her him his how its let man may new " +
  "not now old one our out own put run say see set she the too two use was way who why yes you " +
  "able back been call came come each even find first found from give good great hand have head help " +
  "here high home into just keep kind know land last left life like line list live long look made " +
  "make many more most move much must name need next number only open other over part people place " +
  "play point read right same school should small some state still such take tell than that their " +
  "them then there these they thing think this those time turn under very want water well went were " +
  "what when where which while white will with word work world would write year your").split(" ");

/** Begins each text, because a word without a space before it may cost another number of tokens. */
const FIRST = "the";

interface Word {
  readonly text: string;
  /** Tokens that the word adds after another word, with the space between them. */
  readonly cost: number;
}

/** A tokenizer splits a text into words first, so that the tokens of its words add up. */
export class PromptMaker {
  readonly #words: readonly Word[];
  readonly #least: number;
  /** Tokens of a text of the first word alone, with what the tokenizer adds to any text. */
  readonly #first: number;

  private constructor(costs: readonly Word[], first: number) {
    this.#words = costs;
    this.#least = Math.min(...costs.map(({ cost }) => cost));
    this.#first = first;
  }

  /** Measures what each word costs; with an estimate, each word is one token. */
  static async create(counter: TokenCounter): Promise<PromptMaker> {
    if (!counter.isExact) return new PromptMaker(words.map((text) => ({ text, cost: 1 })), 1);
    const first = await counter.count(FIRST);
    const costs = await Promise.all(words.map(async (text) => ({
      text,
      cost: Math.max(1, await counter.count(`${FIRST} ${text}`) - first),
    })));
    return new PromptMaker(costs, first);
  }

  /** A text of `tokens` tokens, with what the tokenizer adds, or of the least number above that. */
  text(tokens: number, random: Random): string {
    const left = tokens - this.#first;
    return left <= 0 ? FIRST : `${FIRST} ${this.words(left, random)}`;
  }

  /** Words that add `tokens` tokens to a text before them, or the least number above that. */
  words(tokens: number, random: Random): string {
    const chosen: string[] = [];
    let left = Math.max(tokens, this.#least);
    while (left > 0) {
      const word = this.#wordFor(left, random);
      chosen.push(word.text);
      left -= word.cost;
    }
    return chosen.join(" ");
  }

  /** A random word that leaves room for others, or none. */
  #wordFor(left: number, random: Random): Word {
    for (let i = 0; i < 20; i++) {
      const word = this.#words[random.below(this.#words.length)];
      const rest = left - word.cost;
      if (rest === 0 || rest >= this.#least) return word;
    }
    const fitting = this.#words.find(({ cost }) => cost === left);
    return fitting ?? this.#words.find(({ cost }) => cost === this.#least)!;
  }
}
