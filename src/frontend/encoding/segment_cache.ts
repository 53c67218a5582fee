import type { Segment } from "./segment_encoder.ts";

/**
 * Bytes of an entry beyond its characters and ids: objects of key, entry and ids, and its place in the map.
 * Measured as V8's heap and external memory with 290,000 short segments in the cache.
 */
const ENTRY_BYTES = 350;

/**
 * Ids of segments that were encoded lately. An agent sends its whole history with every turn: all segments
 * but the last are found here. The least recently used are dropped beyond `maxBytes`.
 */
export class SegmentCache {
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(readonly maxBytes: number) {}

  /** Bytes in use, about. */
  get bytes(): number {
    return this.#bytes;
  }

  get(segment: Segment): Uint32Array | undefined {
    const entry = this.#entries.get(keyOf(segment));
    if (entry === undefined) return undefined;
    this.#entries.delete(entry.key); // a Map keeps the order of insertion: the first is the least recently used
    this.#entries.set(entry.key, entry);
    return entry.ids;
  }

  /** Keeps the ids, unless the segment alone takes a large part of the cache. */
  set(segment: Segment, ids: Uint32Array): void {
    const entry = { key: ownString(keyOf(segment)), ids };
    const bytes = bytesOf(entry);
    if (bytes > this.maxBytes / 8) return;
    const before = this.#entries.get(entry.key);
    if (before !== undefined) this.#drop(before);
    this.#entries.set(entry.key, entry);
    this.#bytes += bytes;
    for (const oldest of this.#entries.values()) {
      if (this.#bytes <= this.maxBytes) break;
      this.#drop(oldest);
    }
  }

  #drop(entry: Entry): void {
    this.#entries.delete(entry.key);
    this.#bytes -= bytesOf(entry);
  }
}

interface Entry {
  /** A string of its own. */
  readonly key: string;
  readonly ids: Uint32Array;
}

/**
 * Most tokenizers know inner segments only: then the key is the text itself, a slice of the prompt that is
 * not copied. A lone surrogate is in no text that is encoded.
 */
function keyOf({ text, place }: Segment): string {
  return place === "inner" ? text : `\ud800${place[0]}${text}`;
}

/** A copy: a slice of the prompt would keep the whole prompt in memory. */
function ownString(text: string): string {
  return ` ${text}`.slice(1);
}

function bytesOf({ key, ids }: Entry): number {
  return 2 * key.length + ids.byteLength + ENTRY_BYTES;
}
