import type { Segment } from "./segment_encoder.ts";

/** Bytes of a key's and a value's objects beyond their content, about. */
const ENTRY_BYTES = 200;

/**
 * Ids of segments that were encoded lately. An agent sends its whole history with every turn: all segments
 * but the last are found here. The least recently used are dropped beyond `maxBytes`.
 */
export class SegmentCache {
  readonly #ids = new Map<string, Uint32Array>();
  #bytes = 0;

  constructor(readonly maxBytes: number) {}

  /** Bytes in use, about. */
  get bytes(): number {
    return this.#bytes;
  }

  get(segment: Segment): Uint32Array | undefined {
    const key = keyOf(segment);
    const ids = this.#ids.get(key);
    if (ids === undefined) return undefined;
    this.#ids.delete(key); // a Map keeps the order of insertion: the first is the least recently used
    this.#ids.set(key, ids);
    return ids;
  }

  /** Keeps the ids, unless the segment alone takes a large part of the cache. */
  set(segment: Segment, ids: Uint32Array): void {
    const key = keyOf(segment);
    const bytes = bytesOf(key, ids);
    if (bytes > this.maxBytes / 8) return;
    const before = this.#ids.get(key);
    if (before !== undefined) this.#drop(key, before);
    this.#ids.set(key, ids);
    this.#bytes += bytes;
    for (const [oldest, value] of this.#ids) {
      if (this.#bytes <= this.maxBytes) break;
      this.#drop(oldest, value);
    }
  }

  #drop(key: string, ids: Uint32Array): void {
    this.#ids.delete(key);
    this.#bytes -= bytesOf(key, ids);
  }
}

/** A string of its own: a slice of the prompt would keep the whole prompt in memory. */
function keyOf({ text, place }: Segment): string {
  return `${place[0]}${text}`;
}

function bytesOf(key: string, ids: Uint32Array): number {
  return 2 * key.length + ids.byteLength + ENTRY_BYTES;
}
