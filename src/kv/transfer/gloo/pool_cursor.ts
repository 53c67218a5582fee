import { MAX_PLACES } from "../../../../ffi/sockets.ts";
import { blockBytes, type KvLayout, layerBytes } from "../../layout.ts";
import type { TransferLimits } from "../backend.ts";
import { transferRounds } from "../rounds.ts";

/** The memory of a pool; address null where it only accounts for blocks. */
export interface PoolMemory {
  readonly address: bigint | null;
  readonly layout: KvLayout;
}

/**
 * Where the bytes of a transfer lie in a pool, in the order in which they travel: round by round, in
 * each the blocks one after the other. Adjacent blocks are one place where a round has all layers, so
 * that both ends may have different places for the same bytes.
 */
export class PoolCursor {
  /** Pairs of address and bytes. */
  readonly #places: BigUint64Array<ArrayBuffer>;
  /** First place that is not done. */
  #next = 0;
  #remainingBytes = 0;

  constructor(
    { address, layout }: PoolMemory,
    blocks: readonly number[],
    limits: TransferLimits,
  ) {
    const places: bigint[] = [];
    for (const round of transferRounds(blocks, blocks, layout.numLayers, limits)) {
      if (address === null) break;
      const offset = round.firstLayer * layerBytes(layout);
      const bytes = round.numLayers * layerBytes(layout);
      for (const { sourceBlock, numBlocks } of round.runs) {
        places.push(address + BigInt(sourceBlock * blockBytes(layout) + offset));
        places.push(BigInt(numBlocks * bytes));
        this.#remainingBytes += numBlocks * bytes;
      }
    }
    this.#places = BigUint64Array.from(places);
  }

  get remainingBytes(): number {
    return this.#remainingBytes;
  }

  /** The places that come next, as many as one call takes. */
  places(): BigUint64Array<ArrayBuffer> {
    return this.#places.subarray(2 * this.#next, 2 * (this.#next + MAX_PLACES));
  }

  /** The next `bytes` bytes are done. */
  advance(bytes: number): void {
    this.#remainingBytes -= bytes;
    while (bytes > 0) {
      const place = 2 * this.#next;
      const length = Number(this.#places[place + 1]);
      if (bytes < length) {
        this.#places[place] += BigInt(bytes);
        this.#places[place + 1] = BigInt(length - bytes);
        return;
      }
      bytes -= length;
      this.#next++;
    }
  }
}
