import { blockBytes, type KvLayout, layerBytes } from "../layout.ts";
import type { HostPool } from "./pool.ts";
import { checkRun } from "./pool_bounds.ts";

/** A pool in an array, which it keeps alive. */
export class ArrayKvPool implements HostPool {
  readonly memory = "host";
  readonly layout: KvLayout;
  readonly numBlocks: number;
  readonly bytes: Uint8Array<ArrayBuffer>;

  /** @param bytes `[numBlocks, blockBytes(layout)]`; default zeros */
  constructor(
    layout: KvLayout,
    numBlocks: number,
    bytes = new Uint8Array(numBlocks * blockBytes(layout)),
  ) {
    if (bytes.length !== numBlocks * blockBytes(layout)) {
      throw new RangeError(`${bytes.length} bytes for ${numBlocks} blocks`);
    }
    this.layout = layout;
    this.numBlocks = numBlocks;
    this.bytes = bytes;
  }

  get address(): bigint {
    void this.bytes.buffer; // the garbage collector moves a small array until its buffer is used
    return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.bytes)));
  }

  run(block: number, firstLayer: number, numLayers: number): Uint8Array<ArrayBuffer> {
    checkRun(this.layout, this.numBlocks, block, firstLayer, numLayers);
    const bytes = layerBytes(this.layout);
    const start = block * blockBytes(this.layout) + firstLayer * bytes;
    return this.bytes.subarray(start, start + numLayers * bytes);
  }
}
