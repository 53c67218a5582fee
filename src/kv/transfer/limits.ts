import { type KvLayout, layerBytes } from "../layout.ts";
import type { KvPool } from "../pool/pool.ts";
import type { TransferLimits } from "./backend.ts";

/** Default of `--migration-buffer-blocks`, from Llumnix. */
export const DEFAULT_BUFFER_BLOCKS = 512;

/** Limits that fit a pool, and a warning if they had to be reduced. */
export interface FittedLimits {
  readonly limits: TransferLimits;
  readonly warning: string | null;
}

/**
 * Reduces the limits of a round to the blocks of the pool (`--migration-buffer-blocks`, with a warning)
 * and to the layers of the model (`--migration-num-layers`). The reduction of a default has no warning.
 */
export function fitLimits(
  { bufferBlocks, numLayers }: TransferLimits,
  { numBlocks, layout }: Pick<KvPool, "numBlocks" | "layout">,
): FittedLimits {
  const limits = {
    bufferBlocks: Math.min(bufferBlocks, numBlocks),
    numLayers: Math.min(numLayers, layout.numLayers),
  };
  const isChosen = bufferBlocks !== DEFAULT_BUFFER_BLOCKS;
  const warning = isChosen && bufferBlocks > numBlocks
    ? `--migration-buffer-blocks ${bufferBlocks} is more than the ${numBlocks} KV blocks of the ` +
      `instance: reduced to ${numBlocks}`
    : null;
  return { limits, warning };
}

/** Reduces the limits to rounds of `maxBytes` bytes, or of one layer of one block if that is more. */
export function limitsWithin(
  maxBytes: number,
  { bufferBlocks, numLayers }: TransferLimits,
  layout: KvLayout,
): TransferLimits {
  const maxLayers = Math.max(1, Math.floor(maxBytes / layerBytes(layout)));
  const layers = Math.min(numLayers, layout.numLayers, maxLayers);
  const maxBlocks = Math.max(1, Math.floor(maxBytes / (layers * layerBytes(layout))));
  return { bufferBlocks: Math.min(bufferBlocks, maxBlocks), numLayers: layers };
}
