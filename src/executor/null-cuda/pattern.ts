/**
 * Contents of a KV cache that name the sequence and the position of each token, so that a check finds
 * every block that was lost, mixed up, torn or moved to a wrong place.
 */
import { type KvLayout, layerBytes } from "../../kv/layout.ts";

/** What the tokens of a sequence have in common on every instance: a hash of its prompt and seed. */
export type SequenceKey = number;

/** The hash (32 bit) of a sequence's prompt and seed. */
export function sequenceKey(promptTokenIds: readonly number[], seed: number): SequenceKey {
  let key = mix((seed | 0) ^ Math.floor(seed / 2 ** 32));
  for (const token of promptTokenIds) key = mix(key ^ token) + 1 | 0;
  return key >>> 0;
}

/** Words of a token in one layer: key, position, layer, then a sequence that the three determine. */
const NAMED_WORDS = 3;

/** Where the pattern of a sequence and the contents of a block differ. */
export interface PatternMismatch {
  readonly layer: number;
  readonly position: number;
  /** What is there instead, for people. */
  readonly found: string;
}

/** Writes and checks blocks: `[numLayers][blockSize][words]` of u32, little-endian. */
export class BlockPattern {
  /** Of a token in one layer. */
  readonly #words: number;
  readonly #layout: KvLayout;

  constructor(layout: KvLayout) {
    this.#layout = layout;
    this.#words = layerBytes(layout) / layout.blockSize / Uint32Array.BYTES_PER_ELEMENT;
  }

  /** Bytes of a token in one layer. */
  get tokenBytes(): number {
    return this.#words * Uint32Array.BYTES_PER_ELEMENT;
  }

  /**
   * Writes the tokens [start, end) of a sequence, which are in one block, to their places.
   * @param block [numLayers, blockSize, words]
   */
  write(block: Uint32Array, key: SequenceKey, start: number, end: number): void {
    const { numLayers, blockSize } = this.#layout;
    for (let layer = 0; layer < numLayers; layer++) {
      for (let position = start; position < end; position++) {
        const at = (layer * blockSize + position % blockSize) * this.#words;
        let value = firstValue(key, position, layer);
        block[at] = key;
        block[at + 1] = position;
        block[at + 2] = layer;
        for (let word = NAMED_WORDS; word < this.#words; word++) {
          block[at + word] = value = next(value);
        }
      }
    }
  }

  /** The first difference in tokens [start, end), which are in one block; null if they are right. */
  check(
    block: Uint32Array,
    key: SequenceKey,
    start: number,
    end: number,
  ): PatternMismatch | null {
    const { numLayers, blockSize } = this.#layout;
    for (let layer = 0; layer < numLayers; layer++) {
      for (let position = start; position < end; position++) {
        const at = (layer * blockSize + position % blockSize) * this.#words;
        let value = firstValue(key, position, layer);
        let isRight = block[at] === key && block[at + 1] === position && block[at + 2] === layer;
        for (let word = NAMED_WORDS; word < this.#words; word++) {
          value = next(value);
          if (block[at + word] !== value) isRight = false;
        }
        if (!isRight) return { layer, position, found: describe(block, at) };
      }
    }
    return null;
  }
}

function firstValue(key: SequenceKey, position: number, layer: number): number {
  return mix(mix(key ^ position) ^ layer) >>> 0;
}

/** Any sequence would do whose words are all different. */
function next(value: number): number {
  return (value + 0x9e3779b9) >>> 0;
}

/** Fresh memory of the software device holds 0xff everywhere; the driver gives zeros. */
function describe(block: Uint32Array, at: number): string {
  const [key, position, layer] = block.subarray(at, at + NAMED_WORDS);
  const isFresh = [0, 2 ** 32 - 1].some((word) =>
    [key, position, layer].every((is) => is === word)
  );
  return isFresh
    ? "memory that nobody has written"
    : `position ${position}, layer ${layer} of sequence ${shownKey(key)}, or parts of it`;
}

export function shownKey(key: SequenceKey): string {
  return key.toString(16).padStart(8, "0");
}

/** Murmur3's final mix of a 32-bit integer: every bit of the result depends on every bit. */
function mix(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
}
