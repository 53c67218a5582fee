import { BlockAllocator } from "./block_allocator.ts";
import type { Sequence } from "./sequence.ts";

/** Share of the device blocks that admitting a sequence leaves free (vLLM: block_manager_v1.py). */
const WATERMARK = 0.01;

/** Device blocks that transfers are reading or writing. */
export interface BlocksInFlight {
  readonly read: Iterable<number>;
  readonly written: Iterable<number>;
}

const NONE_IN_FLIGHT: BlocksInFlight = { read: [], written: [] };

/** Whether a sequence can get its blocks. `never`: not even with the whole pool to itself. */
export type AllocationStatus = "yes" | "later" | "never";

export interface BlockPools {
  /** Tokens in a block. */
  readonly blockSize: number;
  readonly deviceBlocks: number;
  readonly swapBlocks: number;
}

/**
 * The block tables of all sequences, over a device pool and a swap pool. Blocks are allocated and
 * freed only here. Each pool numbers its blocks from 0, so that a number alone does not identify
 * the pool.
 */
export class BlockManager {
  readonly blockSize: number;
  /** Device blocks that stay free when a sequence is admitted, so that running ones can grow. */
  readonly watermarkBlocks: number;
  readonly #device: BlockAllocator;
  readonly #swap: BlockAllocator;
  /** Number of transfers that read each device block. The block may be in no table any more. */
  readonly #inFlight: Uint16Array;
  /** Device blocks reserved for a migration to here; they are in no table yet. */
  readonly #reserved = new Set<number>();

  constructor(pools: BlockPools) {
    this.blockSize = pools.blockSize;
    this.watermarkBlocks = Math.floor(WATERMARK * pools.deviceBlocks);
    this.#device = new BlockAllocator("device", pools.deviceBlocks);
    this.#swap = new BlockAllocator("swap", pools.swapBlocks);
    this.#inFlight = new Uint16Array(pools.deviceBlocks);
  }

  get totalBlocks(): number {
    return this.#device.totalBlocks;
  }

  get freeBlocks(): number {
    return this.#device.freeBlocks;
  }

  get freeSwapBlocks(): number {
    return this.#swap.freeBlocks;
  }

  /** Number of blocks that hold `tokens` tokens. */
  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockSize);
  }

  /**
   * Whether a sequence without device blocks (waiting or swapped) can get blocks for all its
   * tokens.
   *
   * A new prompt has to leave the watermark free. A sequence with output was admitted once and may
   * have grown into the watermark since. It gets the whole pool if it has it to itself, so that
   * every sequence that fits the pool completes. (vLLM 0.4.2 would fail it, or let it wait
   * forever.)
   * @param moreBlocks blocks that would be free in addition
   */
  canAllocate(sequence: Sequence, moreBlocks = 0): AllocationStatus {
    const required = this.blocksFor(sequence.lengthTokens);
    const remaining = this.totalBlocks - required;
    if (remaining < 0) return "never";
    const isNew = sequence.outputTokenIds.length === 0;
    if (isNew && remaining < this.watermarkBlocks) return "never";
    const watermark = Math.min(this.watermarkBlocks, remaining);
    return this.freeBlocks + moreBlocks - required >= watermark ? "yes" : "later";
  }

  /** Gives a waiting sequence blocks for all its tokens. */
  allocate(sequence: Sequence): void {
    this.#grow(sequence);
  }

  /** Whether the newest token of a running sequence has a slot, or can get one. */
  canAppend(sequence: Sequence): boolean {
    if (this.#holds(sequence)) return true;
    const needed = this.blocksFor(sequence.lengthTokens) - sequence.blocks.length;
    return needed <= this.freeBlocks;
  }

  /**
   * Gives the newest token of a running sequence a slot, unless it has one.
   * @param ahead the same for so many tokens that steps under way will add
   */
  append(sequence: Sequence, ahead = 0): void {
    this.#grow(sequence, ahead);
  }

  /** Blocks that {@linkcode append} would take. */
  missingBlocks(sequence: Sequence, ahead: number): number {
    return Math.max(0, this.blocksFor(sequence.lengthTokens + ahead) - sequence.blocks.length);
  }

  canSwapOut(sequence: Sequence): boolean {
    return sequence.blocks.length <= this.freeSwapBlocks;
  }

  /** Moves a table to the swap pool. Appends the copies to `pairs`: device block, swap block. */
  swapOut(sequence: Sequence, pairs: number[]): void {
    this.#move(sequence, this.#device, this.#swap, pairs);
    sequence.numComputedTokens = 0;
  }

  /**
   * Moves a table to the device pool, and adds a slot for the newest token. Appends the copies to
   * `pairs`: swap block, device block. Call {@linkcode canAllocate} before.
   */
  swapIn(sequence: Sequence, pairs: number[]): void {
    this.#move(sequence, this.#swap, this.#device, pairs);
    this.#grow(sequence);
  }

  /** Frees a table. The status of the sequence has to be `swapped` exactly if its table is. */
  free(sequence: Sequence): void {
    const pool = sequence.status === "swapped" ? this.#swap : this.#device;
    for (const block of sequence.blocks) pool.release(block);
    sequence.blocks.length = 0;
    sequence.numComputedTokens = 0;
  }

  /** Keeps device blocks from being reused while a transfer reads them. */
  retain(blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#device.retain(block);
      this.#inFlight[block]++;
    }
  }

  /** The transfer has read `blocks`. Blocks that are in no table any more become free. */
  release(blocks: readonly number[]): void {
    for (const block of blocks) {
      if (this.#inFlight[block] === 0) throw new Error(`block ${block} is in no transfer`);
      this.#inFlight[block]--;
      this.#device.release(block);
    }
  }

  /** Whether a migration to here can reserve `count` blocks and leave the watermark free. */
  canReserve(count: number): boolean {
    return this.freeBlocks - count >= this.watermarkBlocks;
  }

  /** The blocks that will probably be taken next. */
  upcoming(count: number): number[] {
    return this.#device.upcoming(count);
  }

  /** Takes blocks for a transfer to write. Not while a step swaps out: it reads free blocks. */
  reserve(count: number): number[] {
    const blocks = Array.from({ length: count }, () => this.#device.allocate());
    for (const block of blocks) this.#reserved.add(block);
    return blocks;
  }

  /** Frees reserved blocks, which no transfer may write any more. */
  cancelReservation(blocks: readonly number[]): void {
    for (const block of blocks) {
      if (!this.#reserved.delete(block)) throw new Error(`block ${block} is not reserved`);
      this.#device.release(block);
    }
  }

  /** Makes reserved blocks the table of a sequence without blocks. */
  adopt(sequence: Sequence, blocks: readonly number[]): void {
    for (const block of blocks) {
      if (!this.#reserved.delete(block)) throw new Error(`block ${block} is not reserved`);
      sequence.blocks.push(block);
    }
  }

  /**
   * Verifies both pools against the tables of all sequences: free + allocated + reserved + in
   * flight = total, and no block is in two places.
   * @param inFlight blocks that transfers read (they have to be pinned) and write (they have to be
   *   reserved), as far as the caller knows
   * @throws {Error} naming the first inconsistency
   */
  check(sequences: Iterable<Sequence>, inFlight: BlocksInFlight = NONE_IN_FLIGHT): void {
    this.#device.check();
    this.#swap.check();
    const tables = { device: new Set<number>(), swap: new Set<number>() };
    for (const sequence of sequences) {
      const pool = sequence.status === "swapped" ? "swap" : "device";
      for (const block of sequence.blocks) {
        if (tables[pool].has(block)) throw new Error(`${pool} block ${block} is in two tables`);
        tables[pool].add(block);
      }
    }
    for (const block of this.#reserved) {
      if (tables.device.has(block)) {
        throw new Error(`device block ${block} is reserved, and in a table`);
      }
    }
    this.#checkReferences(this.#device, (block) => {
      const isTaken = tables.device.has(block) || this.#reserved.has(block);
      return (isTaken ? 1 : 0) + this.#inFlight[block];
    });
    this.#checkReferences(this.#swap, (block) => tables.swap.has(block) ? 1 : 0);
    for (const block of inFlight.read) {
      if (!this.#inFlight[block]) throw new Error(`device block ${block} is read but not pinned`);
    }
    for (const block of inFlight.written) {
      if (this.#reserved.has(block)) continue;
      throw new Error(`device block ${block} is written but not reserved`);
    }
  }

  #checkReferences(pool: BlockAllocator, expected: (block: number) => number): void {
    for (let block = 0; block < pool.totalBlocks; block++) {
      const references = pool.references(block);
      if (references === expected(block)) continue;
      throw new Error(
        `${pool.name} pool: block ${block} has ${references} references, but is used by ` +
          `${expected(block)} tables, reservations and transfers`,
      );
    }
  }

  /** Whether the blocks of a sequence have slots for all its tokens. */
  #holds({ blocks, lengthTokens }: Sequence, ahead = 0): boolean {
    return blocks.length * this.blockSize >= lengthTokens + ahead;
  }

  #grow(sequence: Sequence, ahead = 0): void {
    while (!this.#holds(sequence, ahead)) sequence.blocks.push(this.#device.allocate());
  }

  #move(sequence: Sequence, from: BlockAllocator, to: BlockAllocator, pairs: number[]): void {
    const { blocks } = sequence;
    for (let i = 0; i < blocks.length; i++) {
      const target = to.allocate();
      pairs.push(blocks[i], target);
      from.release(blocks[i]);
      blocks[i] = target;
    }
  }
}
