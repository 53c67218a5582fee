import { LlumnixError, ModelError } from "../../core/errors.ts";
import type { TokenLogprobs } from "../../core/protocol/generate.ts";
import { largest, RankSelector } from "./selection.ts";

/** Weights below e^-50 of the largest count as 0: they round to it anyway. */
export const negligibleExponent = 50;

/**
 * The weight of the most likely token: a power of two with which the weights of a whole vocabulary add up to
 * 2^53 at most. Weights are integers up to it, so that float64 holds every sum exactly: a choice depends on
 * no order of addition, and a device that adds in another order makes the same one.
 */
export function largestWeight(vocabSize: number): number {
  const bitsOfVocabulary = 32 - Math.clz32(vocabSize - 1);
  return 2 ** Math.min(40, 53 - bitsOfVocabulary);
}

/** Up to so many largest values are found by insertion. */
const insertionLimit = 64;

/** exp(-k / 64). */
export const expTable = Float64Array.from(
  { length: 64 * negligibleExponent + 2 },
  (_, k) => Math.exp(-k / 64),
);

/** exp(-x) for 0 <= x < 50 within 1e-15: table and Taylor series; three times as fast as Math.exp. */
function expMinus(x: number): number {
  const k = (x * 64 + 0.5) | 0;
  const r = k / 64 - x;
  return expTable[k] *
    (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120))))));
}

/**
 * The distribution over the next token while cuts narrow it. Candidates stay in ascending order of
 * their ids, so that results depend on the values alone. Sums are integers in float64.
 * One object serves any number of sequences, one after the other.
 */
export class TokenDistribution {
  readonly #vocabSize: number;
  readonly #values: Float32Array;
  readonly #bits: Int32Array;
  readonly #identity: Int32Array;
  readonly #ids: Int32Array;
  readonly #weights: Float64Array;
  readonly #selector: RankSelector;
  readonly #largestWeight: number;
  #count = 0;
  #max = 0;
  #inverseTemperature = 1;
  #total = 0;

  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize;
    this.#values = new Float32Array(vocabSize);
    this.#bits = new Int32Array(this.#values.buffer);
    this.#identity = Int32Array.from({ length: vocabSize }, (_, i) => i);
    this.#ids = new Int32Array(vocabSize);
    this.#weights = new Float64Array(vocabSize);
    this.#selector = new RankSelector(vocabSize);
    this.#largestWeight = largestWeight(vocabSize);
  }

  /**
   * Starts from all tokens.
   * @param logits [vocab]; -Infinity excludes a token
   * @throws {ModelError} a logit is NaN or +Infinity
   * @throws {LlumnixError} all are -Infinity
   */
  load(logits: Float32Array): void {
    if (logits.length !== this.#vocabSize) {
      throw new LlumnixError(
        "internal",
        `got ${logits.length} logits for a vocabulary of ${this.#vocabSize}`,
      );
    }
    this.#max = logits[argmax(logits)];
    this.#values.set(logits);
    this.#ids.set(this.#identity);
    this.#count = this.#vocabSize;
  }

  /** Keeps the `k` tokens of the largest values and those equal to the last of them. */
  keepTopK(k: number): void {
    if (k >= this.#count) return;
    const last = this.#nthLargest(k);
    this.#keepFrom(this.#values[last], this.#vocabSize);
  }

  /**
   * Gives the candidates weights exp((value - max) / temperature), rounded to multiples of 1 /
   * {@linkcode largestWeight}. Call it before the methods below.
   */
  weigh(temperature: number): void {
    const values = this.#values, ids = this.#ids, weights = this.#weights;
    const max = this.#max, inverse = 1 / temperature, largest = this.#largestWeight;
    let total = 0;
    for (let j = 0; j < this.#count; j++) {
      const exponent = (max - values[ids[j]]) * inverse;
      const weight = exponent < negligibleExponent
        ? Math.floor(expMinus(exponent) * largest + 0.5)
        : 0;
      weights[j] = weight;
      total += weight;
    }
    this.#inverseTemperature = inverse;
    this.#total = total;
  }

  /**
   * Drops the least likely tokens while their sum is at most 1 - p (vLLM's definition), never the
   * most likely one.
   */
  keepTopP(p: number): void {
    const limit = (1 - p) * this.#total;
    const last = this.#ids[
      this.#selector.firstAbove(this.#bits, this.#ids, this.#weights, this.#count, limit)
    ];
    this.#keepFrom(this.#values[last], last);
  }

  /** Drops tokens less likely than `p` times the most likely one. */
  keepMinP(p: number): void {
    const ids = this.#ids, weights = this.#weights, least = p * this.#largestWeight;
    let kept = 0;
    let total = 0;
    for (let j = 0; j < this.#count; j++) {
      if (weights[j] < least) continue;
      ids[kept] = ids[j];
      weights[kept++] = weights[j];
      total += weights[j];
    }
    this.#count = kept;
    this.#total = total;
  }

  /** The token at quantile `u` in [0, 1), candidates in the order of their ids. */
  draw(u: number): number {
    const weights = this.#weights, target = u * this.#total;
    let sum = 0;
    let last = 0;
    for (let j = 0; j < this.#count; j++) {
      if (weights[j] === 0) continue;
      last = j;
      sum += weights[j];
      if (sum > target) break;
    }
    return this.#ids[last];
  }

  /**
   * Log probability of one token, its rank (1 + tokens strictly more likely) and the `topCount`
   * most likely tokens. Ends the use of the weights: load again before the next draw.
   */
  logprobs(tokenId: number, topCount: number): TokenLogprobs {
    const value = this.#contains(tokenId) ? this.#values[tokenId] : -Infinity;
    let rank = 1;
    for (let j = 0; j < this.#count; j++) {
      if (this.#values[this.#ids[j]] > value) rank++;
    }
    const top = this.#topIds(Math.min(topCount, this.#vocabSize));
    return {
      tokenId,
      logprob: this.#logprob(value),
      rank,
      top: top.map((id) => [id, this.#logprob(this.#contains(id) ? this.#values[id] : -Infinity)]),
    };
  }

  #logprob(value: number): number | null {
    if (value === -Infinity) return null;
    return logprobOf(
      (value - this.#max) * this.#inverseTemperature,
      this.#total,
      this.#largestWeight,
    );
  }

  /** The most likely tokens in order; dropped ones, lowest id first, when there are too few. */
  #topIds(n: number): number[] {
    const top = this.#largest(Math.min(n, this.#count));
    for (let id = 0; top.length < n; id++) if (!this.#contains(id)) top.push(id);
    return top;
  }

  /** The `n` candidates of the largest values in order, equal values by id. */
  #largest(n: number): number[] {
    if (n <= insertionLimit) return [...largest(this.#values, this.#ids, this.#count, n)];
    const values = this.#values, last = this.#nthLargest(n);
    const top: number[] = [];
    for (let j = 0; j < this.#count; j++) {
      const id = this.#ids[j];
      if (values[id] > values[last] || (values[id] === values[last] && id <= last)) top.push(id);
    }
    // Not a difference: -Infinity minus itself is NaN.
    return top.sort((a, b) => values[a] === values[b] ? a - b : values[a] > values[b] ? -1 : 1);
  }

  /** The last of {@linkcode #largest}. */
  #nthLargest(n: number): number {
    if (n <= insertionLimit) return largest(this.#values, this.#ids, this.#count, n)[n - 1];
    const weights = this.#weights.fill(1, 0, this.#count);
    const limit = this.#count - n;
    return this.#ids[
      this.#selector.firstAbove(this.#bits, this.#ids, weights, this.#count, limit)
    ];
  }

  /** Keeps candidates above `value`, and those equal to it up to the id `lastId`. */
  #keepFrom(value: number, lastId: number): void {
    const values = this.#values, ids = this.#ids, weights = this.#weights;
    let kept = 0;
    let total = 0;
    for (let j = 0; j < this.#count; j++) {
      const id = ids[j];
      if (values[id] < value || (values[id] === value && id > lastId)) continue;
      ids[kept] = id;
      weights[kept++] = weights[j];
      total += weights[j];
    }
    this.#count = kept;
    this.#total = total;
  }

  #contains(id: number): boolean {
    if (this.#count === this.#vocabSize) return true;
    let low = 0, high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ids[middle] < id) low = middle + 1;
      else high = middle;
    }
    return low < this.#count && this.#ids[low] === id;
  }
}

/** @param exponent (value - largest value) / temperature; at most 0 */
export function logprobOf(exponent: number, totalWeight: number, largestWeight: number): number {
  return exponent - Math.log(totalWeight / largestWeight);
}

/** The model computed a logit that is no number. */
export function garbageLogit(tokenId: number, logit: number): ModelError {
  return new ModelError(
    `logit of token ${tokenId} is ${logit}: the model computed garbage; check its weights and dtype`,
  );
}

/** Restrictions of a request, or the model, exclude the whole vocabulary. */
export function nothingToChoose(): LlumnixError {
  return new LlumnixError("internal", "every token is excluded: nothing to choose");
}

/**
 * Index of the largest value, the lowest when several are equal.
 * @throws {ModelError} a value is NaN or +Infinity
 * @throws {LlumnixError} all are -Infinity
 */
export function argmax(logits: Float32Array): number {
  let max = -Infinity;
  let index = -1;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i];
    // Negated so that NaN takes this branch too.
    if (value <= max) continue;
    if (!(value < Infinity)) throw garbageLogit(i, value);
    max = value;
    index = i;
  }
  if (index < 0) throw nothingToChoose();
  return index;
}
