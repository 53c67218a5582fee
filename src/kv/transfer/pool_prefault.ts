import { populate } from "../../../ffi/libc.ts";
import { blockBytes } from "../layout.ts";
import type { PoolMemory } from "./pool_cursor.ts";

/** A huge page, which the system may give as a whole: 3 ms on a slow machine. */
const PIECE_BYTES = 2 << 20;

/**
 * Makes the memory of blocks resident, so that the first write need not wait for the system. Each block
 * is prepared once, and a piece at a time, so that the thread can answer others in between.
 */
export class PoolPrefault {
  readonly #pool: PoolMemory;
  /** By block: whether it was prepared, or waits to be. */
  readonly #isKnown: Uint8Array;
  readonly #waiting: number[] = [];
  /** Prepared bytes of the first waiting block. */
  #doneBytes = 0;

  /** @param numBlocks of the pool */
  constructor(pool: PoolMemory, numBlocks: number) {
    this.#pool = pool;
    this.#isKnown = new Uint8Array(numBlocks);
  }

  /** Whether no block waits. */
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

  /** Prepares the next piece, which lies within one huge page. */
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
