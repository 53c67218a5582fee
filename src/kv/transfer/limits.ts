import type { KvPool } from "../pool/pool.ts";
import type { TransferLimits } from "./backend.ts";

/** Limits that fit a pool, and what to tell of it. */
export interface FittedLimits {
  readonly limits: TransferLimits;
  readonly warning: string | null;
}

/**
 * A round has no more blocks than the pool (`--migration-buffer-blocks`, with a warning), and no more
 * layers than the model (`--migration-num-layers`).
 */
export function fitLimits(
  { bufferBlocks, numLayers }: TransferLimits,
  { numBlocks, layout }: Pick<KvPool, "numBlocks" | "layout">,
): FittedLimits {
  const limits = {
    bufferBlocks: Math.min(bufferBlocks, numBlocks),
    numLayers: Math.min(numLayers, layout.numLayers),
  };
  const warning = bufferBlocks > numBlocks
    ? `--migration-buffer-blocks ${bufferBlocks} is more than the ${numBlocks} KV blocks of the ` +
      `instance: reduced to ${numBlocks}`
    : null;
  return { limits, warning };
}
