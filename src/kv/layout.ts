import { type CacheDType, dtypeBytes } from "../core/dtype.ts";

/**
 * Shape of a paged KV cache. The cache is block-major: a block holds the keys and values of its tokens
 * for all layers in one contiguous run, so moving a block is one copy. Within a block, each layer is a
 * contiguous run of `layerBytes`, so a transfer can also go layer by layer.
 */
export interface KvLayout {
  /**
   * Order inside a layer's run. `k-transposed`: per KV head K transposed `[headDim][blockSize]`, then
   * V `[blockSize][headDim]`. `k-then-v`: K `[numKvHeads][blockSize][headDim]`, then V likewise. `pattern`: per token `2 * numKvHeads * headDim` elements that name the
   * token (`src/executor/null-cuda`). Pools exchange blocks only when their layouts are equal.
   */
  readonly format: "k-transposed" | "k-then-v" | "pattern";
  readonly dtype: CacheDType;
  readonly numLayers: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Tokens in a block. */
  readonly blockSize: number;
  /**
   * Present if prompts are computed by a library with sums in an order of its own: which one. A request that
   * moved would go on with other numbers where this differs.
   */
  readonly promptProducts?: string;
  /**
   * Present if the KV heads of a block are divided among so many devices. Each has the run of a block that
   * {@linkcode shardLayout} describes; the block's bytes are, layer by layer, those of all devices in their order.
   */
  readonly shards?: number;
}

/** The layout of what one device has of a block. */
export function shardLayout({ shards = 1, ...layout }: KvLayout): KvLayout {
  return { ...layout, numKvHeads: layout.numKvHeads / shards };
}

/** Bytes of one layer's run inside a block. */
export function layerBytes(layout: KvLayout): number {
  return 2 * layout.numKvHeads * layout.headDim * layout.blockSize * dtypeBytes(layout.dtype);
}

/** Bytes of one block over all layers. */
export function blockBytes(layout: KvLayout): number {
  return layout.numLayers * layerBytes(layout);
}

/**
 * The first field in which two layouts differ, for a handshake's error message; null if they are equal.
 * @param here where `a` is, in the words of the message
 * @param there where `b` is
 */
export function layoutDifference(
  a: KvLayout,
  b: KvLayout,
  here = "here",
  there = "there",
): string | null {
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]) as Set<keyof KvLayout>;
  for (const key of keys) {
    if (a[key] !== b[key]) return `${key} is ${a[key]} ${here} and ${b[key]} ${there}`;
  }
  return null;
}
