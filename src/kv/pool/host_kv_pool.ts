import { blockBytes, type KvLayout, layerBytes } from "../layout.ts";
import type { HostPool } from "./pool.ts";
import { checkRun } from "./pool_bounds.ts";

/** Most bytes of one view: below every limit on the length of a typed array. */
const SEGMENT_BYTES = 2 ** 30;

/** A pool in native memory, which must stay allocated while the pool is used. */
export class HostKvPool implements HostPool {
  readonly memory = "host";
  readonly #blockBytes: number;
  readonly #layerBytes: number;
  readonly #segmentBlocks: number;
  /** Views of `#segmentBlocks` blocks each, made at their first use. */
  readonly #segments: (ArrayBuffer | undefined)[] = [];

  /**
   * @param address of block 0; the blocks follow each other
   * @param segmentBytes of one view, for tests
   */
  constructor(
    readonly address: bigint,
    readonly layout: KvLayout,
    readonly numBlocks: number,
    segmentBytes = SEGMENT_BYTES,
  ) {
    this.#blockBytes = blockBytes(layout);
    this.#layerBytes = layerBytes(layout);
    this.#segmentBlocks = Math.max(1, Math.floor(segmentBytes / this.#blockBytes));
  }

  run(block: number, firstLayer: number, numLayers: number): Uint8Array<ArrayBuffer> {
    checkRun(this.layout, this.numBlocks, block, firstLayer, numLayers);
    const segment = Math.floor(block / this.#segmentBlocks);
    const firstBlock = segment * this.#segmentBlocks;
    const buffer = this.#segments[segment] ??= this.#view(firstBlock);
    const start = (block - firstBlock) * this.#blockBytes + firstLayer * this.#layerBytes;
    return new Uint8Array(buffer, start, numLayers * this.#layerBytes);
  }

  #view(firstBlock: number): ArrayBuffer {
    const numBlocks = Math.min(this.#segmentBlocks, this.numBlocks - firstBlock);
    const address = this.address + BigInt(firstBlock * this.#blockBytes);
    const pointer = Deno.UnsafePointer.create(address);
    if (pointer === null) throw new RangeError("the KV pool has no address");
    return Deno.UnsafePointerView.getArrayBuffer(pointer, numBlocks * this.#blockBytes);
  }
}
