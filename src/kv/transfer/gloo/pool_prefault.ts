import { populate } from "../../../../ffi/libc.ts";
import { blockBytes } from "../../layout.ts";
import type { PoolMemory } from "./pool_cursor.ts";

/** Of a huge page, which a system may give as a whole: 3 ms where it is slow. */
const PIECE_BYTES = 2 << 20;

/**
 * Gives blocks of a pool the memory that they may not have yet, each once, and a piece at a time, for
 * the thread that does it has others to answer.
 */
export class PoolPrefault {
  readonly #pool: PoolMemory;
  /** By block: it has its memory, or waits for it. */
  readonly #isKnown: Uint8Array;
  readonly #waiting: number[] = [];
  /** Of the first that waits. */
  #doneBytes = 0;

  /** @param numBlocks of the pool */
  constructor(pool: PoolMemory, numBlocks: number) {
    this.#pool = pool;
    this.#isKnown = new Uint8Array(numBlocks);
  }

  /** No block waits. */
  get isDone(): boolean {
    return this.#waiting.length === 0;
  }

  add(blocks: readonly number[]): void {
    if (this.#pool.address === null) return;
    for (const block of blocks) {
      if (this.#isKnown[block]) continue;
      this.#isKnown[block] = 1;
      this.#waiting.push(block);
    }
  }

  /** The next piece, which lies in one huge page. */
  step(): void {
    if (this.isDone) return;
    const bytes = blockBytes(this.#pool.layout);
    const block = this.#waiting[0];
    const address = Number(this.#pool.address) + block * bytes + this.#doneBytes; // 48 bits: exact
    const piece = Math.min(bytes - this.#doneBytes, PIECE_BYTES - address % PIECE_BYTES);
    populate(BigInt(address), piece);
    this.#doneBytes += piece;
    if (this.#doneBytes < bytes) return;
    this.#waiting.shift();
    this.#doneBytes = 0;
  }
}
