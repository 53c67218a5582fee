import type { KvLayout } from "../layout.ts";

/** @throws {RangeError} a run that is not in the pool */
export function checkRun(
  layout: KvLayout,
  numBlocks: number,
  block: number,
  firstLayer: number,
  numLayers: number,
): void {
  if (!(block >= 0 && block < numBlocks)) {
    throw new RangeError(`block ${block} of a KV pool of ${numBlocks}`);
  }
  if (!(firstLayer >= 0 && numLayers >= 0 && firstLayer + numLayers <= layout.numLayers)) {
    throw new RangeError(
      `layers ${firstLayer} to ${firstLayer + numLayers} of a KV pool of ${layout.numLayers}`,
    );
  }
}
