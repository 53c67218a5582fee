import type { KvLayout } from "../layout.ts";

/** Memory of a paged KV cache that migration backends read and write. */
export interface KvPool {
  readonly layout: KvLayout;
  readonly numBlocks: number;
  /**
   * The bytes of layers [firstLayer, firstLayer + numLayers) of a block, one contiguous run. A view,
   * not a copy.
   * @throws {RangeError} a block or layer that is not there
   */
  run(block: number, firstLayer: number, numLayers: number): Uint8Array<ArrayBuffer>;
}
