import type { Tokenizer } from "../tokenizer.ts";
import type { EncoderPool } from "./encoder_pool.ts";
import { SegmentCache } from "./segment_cache.ts";
import type { Segment } from "./segment_encoder.ts";

export interface PromptEncoderOptions {
  readonly tokenizer: Tokenizer;
  /** Encodes long texts; null to encode everything on this thread. */
  readonly pool: EncoderPool | null;
  /** Waits until this number of characters may be encoded on this thread. */
  readonly takeTurn: (characters: number) => Promise<void>;
  /** Default 64 MiB: the histories of about 60 agents of 100,000 tokens each. */
  readonly cacheBytes?: number;
}

export interface EncodeOptions {
  readonly addSpecialTokens: boolean;
  /** Encoding stops once there are more tokens. */
  readonly maxTokens: number;
}

export interface EncodedText {
  readonly tokenIds: Uint32Array<ArrayBuffer>;
  /** False if encoding stopped at `maxTokens`. */
  readonly isComplete: boolean;
}

/** Texts with less that is new are encoded on this thread: that takes about 5 ms, less than a worker's answer. */
const SHORT_TEXT = 4096;

/** A segment from this length on would hold up this thread for too long: it waits for a worker. */
const LONG_SEGMENT = 16 * 1024;

/** Characters of one job of a worker: about 30 ms of its time. */
const JOB_LENGTH = 32 * 1024;

/**
 * Encodes prompts without holding up the event loop. Segments of earlier prompts are in a cache; new ones are
 * encoded by workers if they are many, else here. While the first worker is still loading, short segments are
 * encoded here, a few in each turn of the event loop.
 */
export class PromptEncoder {
  readonly #options: PromptEncoderOptions;
  readonly #cache: SegmentCache;

  constructor(options: PromptEncoderOptions) {
    this.#options = options;
    this.#cache = new SegmentCache(options.cacheBytes ?? 64 * 1024 * 1024);
  }

  /** Bytes of the cache of segments, about. */
  get cacheBytes(): number {
    return this.#cache.bytes;
  }

  async encode(text: string, { addSpecialTokens, maxTokens }: EncodeOptions): Promise<EncodedText> {
    const { segments } = this.#options.tokenizer;
    const work = new Work(segments.split(text.toWellFormed()), this.#cache, maxTokens);
    if (work.missingLength > 0) await this.#encodeMissing(work);
    const known = work.parts.filter((part) => part !== null);
    return {
      tokenIds: segments.join(known, addSpecialTokens),
      isComplete: known.length === work.parts.length,
    };
  }

  async #encodeMissing(work: Work): Promise<void> {
    const { pool } = this.#options;
    const isLong = work.missingLength > SHORT_TEXT;
    if (pool === null || pool.hasFailed || !isLong) return await this.#encodeHere(work, Infinity);
    pool.start();
    if (!pool.isReady) await this.#encodeHere(work, LONG_SEGMENT, () => pool.isReady);
    const lanes = Array.from({ length: pool.maxWorkers }, () => this.#encodeThere(work, pool));
    try {
      await Promise.all(lanes);
    } catch {
      await this.#encodeHere(work, Infinity); // without workers it takes longer, and stays right
    }
  }

  /**
   * Encodes missing segments on this thread.
   * @param below ends at a segment of this length or longer
   * @param isEnough asked before each segment
   */
  async #encodeHere(work: Work, below: number, isEnough = () => false): Promise<void> {
    const { segments } = this.#options.tokenizer;
    for (let job = work.take(1, below); job.length > 0; job = work.take(1, below)) {
      const [index] = job;
      const segment = work.segments[index];
      await this.#options.takeTurn(segment.text.length);
      if (isEnough()) return work.giveBack(job);
      work.set(index, Uint32Array.from(segments.encode(segment)));
    }
  }

  /** Has one worker encode what is missing, a job at a time. */
  async #encodeThere(work: Work, pool: EncoderPool): Promise<void> {
    for (let job = work.take(JOB_LENGTH); job.length > 0; job = work.take(JOB_LENGTH)) {
      try {
        const ids = await pool.encode(job.map((index) => work.segments[index]));
        job.forEach((index, i) => work.set(index, ids[i]));
      } catch (error) {
        work.giveBack(job);
        throw error;
      }
    }
  }
}

/** The segments of one text, with the ids of the segments that are encoded. */
class Work {
  readonly parts: (ArrayLike<number> | null)[];
  missingLength = 0;
  /** Missing segments, the first one last. */
  #missing: number[] = [];
  #tokens = 0;

  constructor(
    readonly segments: readonly Segment[],
    private readonly cache: SegmentCache,
    private readonly maxTokens: number,
  ) {
    this.parts = segments.map((segment, index) => {
      const ids = cache.get(segment);
      if (ids !== undefined) {
        this.#tokens += ids.length;
        return ids;
      }
      this.#missing.push(index);
      this.missingLength += segment.text.length;
      return null;
    });
    this.#missing.reverse();
  }

  set(index: number, ids: Uint32Array): void {
    this.parts[index] = ids;
    this.#tokens += ids.length;
    this.cache.set(this.segments[index], ids);
  }

  /**
   * Missing segments of about a length together, which are then no longer missing; none once there are too
   * many tokens.
   * @param below ends at a segment of this length or longer
   */
  take(length: number, below = Infinity): number[] {
    const taken: number[] = [];
    if (this.#tokens > this.maxTokens) return taken;
    for (let sum = 0; sum < length && this.#missing.length > 0;) {
      const size = this.segments[this.#missing.at(-1)!].text.length;
      if (size >= below) break;
      taken.push(this.#missing.pop()!);
      sum += size;
    }
    return taken;
  }

  giveBack(indexes: readonly number[]): void {
    this.#missing.push(...indexes.toReversed());
  }
}
