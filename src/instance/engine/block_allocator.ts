/**
 * One pool of KV blocks, numbered from 0. A block is free exactly when it has no reference. Each
 * block table and each transfer in flight that has the block counts as one reference.
 */
export class BlockAllocator {
  readonly #references: Uint16Array;
  /** Stack of free blocks: entries below `#numFree`. */
  readonly #free: Int32Array;
  #numFree: number;

  /** @param name for error messages: "device", "swap" */
  constructor(readonly name: string, readonly totalBlocks: number) {
    this.#references = new Uint16Array(totalBlocks);
    // Block 0 is on top, so that an empty pool hands out ascending ids.
    this.#free = Int32Array.from({ length: totalBlocks }, (_, i) => totalBlocks - 1 - i);
    this.#numFree = totalBlocks;
  }

  get freeBlocks(): number {
    return this.#numFree;
  }

  get usedBlocks(): number {
    return this.totalBlocks - this.#numFree;
  }

  /**
   * Takes a free block with one reference.
   * @throws {Error} no block is free: callers check first
   */
  allocate(): number {
    if (this.#numFree === 0) {
      throw new Error(`${this.name} pool: all ${this.totalBlocks} blocks are taken`);
    }
    const block = this.#free[--this.#numFree];
    this.#references[block] = 1;
    return block;
  }

  /** The next `count` blocks that {@linkcode allocate} would return; fewer if fewer are free. */
  upcoming(count: number): number[] {
    const first = Math.max(0, this.#numFree - count);
    return Array.from(this.#free.subarray(first, this.#numFree)).reverse();
  }

  /** Adds a reference to a block that is in use. */
  retain(block: number): void {
    if (!(this.#references[block] > 0)) {
      throw new Error(`${this.name} pool: block ${block} is retained but not in use`);
    }
    this.#references[block]++;
  }

  /** Drops a reference; the last one frees the block. */
  release(block: number): void {
    if (!(this.#references[block] > 0)) {
      throw new Error(`${this.name} pool: block ${block} is released but not in use`);
    }
    if (--this.#references[block] === 0) this.#free[this.#numFree++] = block;
  }

  references(block: number): number {
    return this.#references[block];
  }

  /**
   * Verifies that every block is either free (and listed once) or in use.
   * @throws {Error} naming the first block that is neither or both
   */
  check(): void {
    const seen = new Uint8Array(this.totalBlocks);
    for (let i = 0; i < this.#numFree; i++) {
      const block = this.#free[i];
      if (seen[block]++) throw new Error(`${this.name} pool: block ${block} is free twice`);
      if (this.#references[block] !== 0) {
        throw new Error(`${this.name} pool: block ${block} is free and in use`);
      }
    }
    for (let block = 0; block < this.totalBlocks; block++) {
      if (!seen[block] && this.#references[block] === 0) {
        throw new Error(`${this.name} pool: block ${block} leaked`);
      }
    }
  }
}
