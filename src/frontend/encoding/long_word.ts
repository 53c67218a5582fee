/**
 * Byte-pair encoding of words of any length. The library keeps an object per character and compares pairs as
 * JSON text: 4 MB without a space took gigabytes there. Here a character takes 40 bytes. The merges, and so
 * the tokens, are the same: the pair of lowest rank first, of equal ones the leftmost.
 */

/** Words from this length on are encoded here; shorter ones stay with the library and its cache. */
export const LONG_WORD = 4096;

/** Ids of tokens are below it, so that a pair of ids is one safe integer. */
const ID_RANGE = 2 ** 26;

interface Merge {
  readonly rank: number;
  readonly merged: number;
}

export class LongWordEncoder {
  readonly #ids = new Map<string, number>();
  readonly #tokens: string[] = [];
  readonly #merges = new Map<number, Merge>();
  /** Pairs that were looked up so far: what encoding costs. */
  lookups = 0;

  /** @param merges pairs of tokens, by rank */
  constructor(merges: readonly (string | readonly [string, string])[]) {
    for (const [rank, merge] of merges.entries()) {
      const [left, right] = typeof merge === "string" ? merge.split(" ", 2) : merge;
      const pair = this.#idOf(left) * ID_RANGE + this.#idOf(right);
      this.#merges.set(pair, { rank, merged: this.#idOf(left + right) });
    }
  }

  /** Tokens of a word, which joined are the word. */
  encode(word: string): string[] {
    const ids = Int32Array.from(characters(word, (character) => this.#idOf(character)));
    const count = ids.length;
    const next = Int32Array.from({ length: count }, (_, i) => i + 1);
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
    const heap = new PairHeap(count);
    const push = (left: number) => {
      if (left < 0 || next[left] >= count) return;
      const merge = this.#mergeOf(ids[left], ids[next[left]]);
      if (merge !== undefined) heap.push(merge.rank, left);
    };
    for (let i = 0; i < count - 1; i++) push(i);
    while (heap.size > 0) {
      const [rank, left] = heap.pop();
      const right = next[left];
      if (ids[left] < 0 || right >= count) continue;
      const merge = this.#mergeOf(ids[left], ids[right]);
      if (merge?.rank !== rank) continue; // one of the two has been merged since
      ids[left] = merge.merged;
      ids[right] = -1;
      next[left] = next[right];
      if (next[right] < count) previous[next[right]] = left;
      push(previous[left]);
      push(left);
    }
    const tokens: string[] = [];
    for (let i = 0; i < count; i = next[i]) tokens.push(this.#tokens[ids[i]]);
    return tokens;
  }

  #mergeOf(left: number, right: number): Merge | undefined {
    this.lookups++;
    return this.#merges.get(left * ID_RANGE + right);
  }

  #idOf(token: string): number {
    let id = this.#ids.get(token);
    if (id === undefined) {
      id = this.#tokens.push(token) - 1;
      this.#ids.set(token, id);
    }
    return id;
  }
}

function* characters(word: string, map: (character: string) => number): Generator<number> {
  for (const character of word) yield map(character);
}

/** A binary heap of (rank, place), smallest first, in two arrays that grow. */
class PairHeap {
  #ranks: Int32Array;
  #places: Int32Array;
  size = 0;

  constructor(capacity: number) {
    this.#ranks = new Int32Array(capacity);
    this.#places = new Int32Array(capacity);
  }

  push(rank: number, place: number): void {
    if (this.size === this.#ranks.length) this.#grow();
    const ranks = this.#ranks, places = this.#places;
    let i = this.size++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isLess(rank, place, ranks[parent], places[parent])) break;
      ranks[i] = ranks[parent];
      places[i] = places[parent];
      i = parent;
    }
    ranks[i] = rank;
    places[i] = place;
  }

  pop(): [rank: number, place: number] {
    const ranks = this.#ranks, places = this.#places;
    const top: [number, number] = [ranks[0], places[0]];
    const last = --this.size;
    const rank = ranks[last], place = places[last];
    let i = 0;
    while (true) {
      let child = 2 * i + 1;
      if (child >= last) break;
      if (
        child + 1 < last &&
        isLess(ranks[child + 1], places[child + 1], ranks[child], places[child])
      ) child++;
      if (!isLess(ranks[child], places[child], rank, place)) break;
      ranks[i] = ranks[child];
      places[i] = places[child];
      i = child;
    }
    ranks[i] = rank;
    places[i] = place;
    return top;
  }

  #grow(): void {
    const length = Math.max(64, 2 * this.#ranks.length);
    for (const name of ["ranks", "places"] as const) {
      const grown = new Int32Array(length);
      grown.set(name === "ranks" ? this.#ranks : this.#places);
      if (name === "ranks") this.#ranks = grown;
      else this.#places = grown;
    }
  }
}

function isLess(rank: number, place: number, otherRank: number, otherPlace: number): boolean {
  return rank < otherRank || rank === otherRank && place < otherPlace;
}
