import { MAX_PLACES } from "../../../ffi/sockets.ts";
import { blockBytes, type KvLayout, layerBytes } from "../layout.ts";
import type { TransferLimits } from "./backend.ts";
import { transferRounds } from "./rounds.ts";

/** The memory of a pool; the address is null if the pool only counts blocks. */
export interface PoolMemory {
  readonly address: bigint | null;
  readonly layout: KvLayout;
}

/** The bytes of a transfer that pass a socket, in the order in which they travel. */
export interface TransferCursor {
  /** Bytes that have not passed the socket yet. */
  readonly remainingBytes: number;
  /** False while the next bytes, or the room for them, wait for a copy of the device. */
  readonly isReady: boolean;
  /** True when the last byte is in its place. @throws {UnavailableError} the device failed */
  readonly isSettled: boolean;
  /**
   * The next places, at most as many as one system call takes: an array of `struct iovec`. Empty unless
   * {@linkcode isReady}.
   * @throws {UnavailableError} the device failed
   */
  places(): BigUint64Array<ArrayBuffer>;
  /** The places of the next `bytes` bytes, or of fewer if one system call takes no more. */
  placesOf(bytes: number): BigUint64Array<ArrayBuffer>;
  /** Marks the next `bytes` bytes as done. */
  advance(bytes: number): void;
  /** The transfer is over: nothing more passes. */
  release(): void;
}

/** `struct iovec` (64 bit): address, bytes. */
const WORDS_PER_PLACE = 4;

/**
 * The places of a transfer's bytes in a pool, in the order in which they travel: round by round, and
 * block by block in each. Adjacent blocks are one place if a round has all layers, so the two ends may
 * divide the same bytes into different places.
 */
export class PoolCursor implements TransferCursor {
  readonly isReady = true;
  /** `[places, WORDS_PER_PLACE]`, little-endian: ten times faster than a BigUint64Array. */
  #words = new Uint32Array(WORDS_PER_PLACE * MAX_PLACES);
  #numPlaces = 0;
  /** The first place that is not done. */
  #next = 0;
  #remainingBytes = 0;

  constructor(
    { address, layout }: PoolMemory,
    blocks: readonly number[],
    limits: TransferLimits,
  ) {
    if (address === null) return;
    const base = Number(address); // exact: addresses have 48 bits
    for (const round of transferRounds(blocks, blocks, layout.numLayers, limits)) {
      const start = base + round.firstLayer * layerBytes(layout);
      const bytes = round.numLayers * layerBytes(layout);
      for (const { sourceBlock, numBlocks } of round.runs) {
        this.#add(start + sourceBlock * blockBytes(layout), numBlocks * bytes);
      }
    }
  }

  get remainingBytes(): number {
    return this.#remainingBytes;
  }

  get isSettled(): boolean {
    return this.#remainingBytes === 0;
  }

  release(): void {}

  places(): BigUint64Array<ArrayBuffer> {
    return this.#view(Math.min(MAX_PLACES, this.#numPlaces - this.#next));
  }

  placesOf(bytes: number): BigUint64Array<ArrayBuffer> {
    const most = Math.min(MAX_PLACES, this.#numPlaces - this.#next);
    let count = 0;
    while (count < most && bytes > 0) {
      bytes -= this.#get((this.#next + count++) * WORDS_PER_PLACE + 2);
    }
    const places = this.#view(count).slice();
    if (bytes < 0) places[places.length - 1] += BigInt(bytes);
    return places;
  }

  advance(bytes: number): void {
    this.#remainingBytes -= bytes;
    while (bytes > 0) {
      const at = this.#next * WORDS_PER_PLACE;
      const length = this.#get(at + 2);
      if (bytes < length) {
        this.#set(at, this.#get(at) + bytes);
        this.#set(at + 2, length - bytes);
        return;
      }
      bytes -= length;
      this.#next++;
    }
  }

  #view(count: number): BigUint64Array<ArrayBuffer> {
    const { buffer, BYTES_PER_ELEMENT } = this.#words;
    const offset = this.#next * WORDS_PER_PLACE * BYTES_PER_ELEMENT;
    return new BigUint64Array(buffer, offset, count * WORDS_PER_PLACE / 2);
  }

  #add(address: number, bytes: number): void {
    const at = this.#numPlaces++ * WORDS_PER_PLACE;
    if (at === this.#words.length) {
      const larger = new Uint32Array(2 * at);
      larger.set(this.#words);
      this.#words = larger;
    }
    this.#set(at, address);
    this.#set(at + 2, bytes);
    this.#remainingBytes += bytes;
  }

  #get(at: number): number {
    return this.#words[at] + this.#words[at + 1] * 2 ** 32;
  }

  #set(at: number, value: number): void {
    this.#words[at] = value; // modulo 2 ** 32
    this.#words[at + 1] = Math.floor(value / 2 ** 32);
  }
}
