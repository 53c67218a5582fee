import { type KvLayout, layerBytes } from "../layout.ts";
import type { PoolRun } from "./pool.ts";

/** @throws {RangeError} a run that is not in the pool */
export function checkRun(
  layout: KvLayout,
  numBlocks: number,
  block: number,
  firstLayer: number,
  numLayers: number,
): void {
  if (!(Number.isInteger(block) && block >= 0 && block < numBlocks)) {
    throw new RangeError(`block ${block} of a KV pool of ${numBlocks}`);
  }
  const areCounts = Number.isInteger(firstLayer) && Number.isInteger(numLayers);
  const lastLayer = firstLayer + numLayers;
  if (!(areCounts && firstLayer >= 0 && numLayers >= 0 && lastLayer <= layout.numLayers)) {
    throw new RangeError(
      `layers ${firstLayer} to ${lastLayer} of a KV pool of ${layout.numLayers}`,
    );
  }
}

/**
 * Bytes of runs that a copy between a pool and a buffer concerns.
 * @throws {RangeError} a run that is not in the pool, or a buffer of another length
 */
export function checkCopy(
  layout: KvLayout,
  numBlocks: number,
  runs: readonly PoolRun[],
  bufferBytes: number,
): void {
  let bytes = 0;
  for (const { block, firstLayer, numLayers } of runs) {
    checkRun(layout, numBlocks, block, firstLayer, numLayers);
    bytes += numLayers * layerBytes(layout);
  }
  if (bytes === bufferBytes) return;
  throw new RangeError(`a buffer of ${bufferBytes} bytes for KV runs of ${bytes} bytes`);
}
