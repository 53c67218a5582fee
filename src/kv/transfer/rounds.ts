import type { PoolRun } from "../pool/pool.ts";
import type { TransferLimits } from "./backend.ts";

/** Adjacent blocks whose destinations are adjacent too: one copy moves them. */
export interface BlockRun {
  readonly sourceBlock: number;
  readonly destinationBlock: number;
  readonly numBlocks: number;
}

/** Bytes that are in flight together: layers [firstLayer, firstLayer + numLayers) of some blocks. */
export interface TransferRound {
  readonly firstLayer: number;
  readonly numLayers: number;
  readonly numBlocks: number;
  /** A run has several blocks only in a round of all layers; else two blocks' bytes are not adjacent. */
  readonly runs: readonly BlockRun[];
}

/**
 * Cuts a transfer into rounds of at most `limits`: all layers of the first blocks, then all layers of
 * the next blocks.
 * @param layers of the model
 */
export function* transferRounds(
  sourceBlocks: readonly number[],
  destinationBlocks: readonly number[],
  layers: number,
  limits: TransferLimits,
): Generator<TransferRound> {
  const bufferBlocks = Math.max(1, limits.bufferBlocks);
  const roundLayers = Math.min(layers, Math.max(1, limits.numLayers));
  const hasAllLayers = roundLayers === layers;
  for (let start = 0; start < sourceBlocks.length; start += bufferBlocks) {
    const end = Math.min(start + bufferBlocks, sourceBlocks.length);
    const runs = runsOf(sourceBlocks, destinationBlocks, start, end, hasAllLayers);
    for (let firstLayer = 0; firstLayer < layers; firstLayer += roundLayers) {
      const numLayers = Math.min(roundLayers, layers - firstLayer);
      yield { firstLayer, numLayers, numBlocks: end - start, runs };
    }
  }
}

function runsOf(
  sources: readonly number[],
  destinations: readonly number[],
  start: number,
  end: number,
  mayMerge: boolean,
): BlockRun[] {
  const runs: BlockRun[] = [];
  for (let i = start; i < end;) {
    let next = i + 1;
    while (
      mayMerge && next < end && sources[next] === sources[next - 1] + 1 &&
      destinations[next] === destinations[next - 1] + 1
    ) next++;
    runs.push({
      sourceBlock: sources[i],
      destinationBlock: destinations[i],
      numBlocks: next - i,
    });
    i = next;
  }
  return runs;
}

/** What a round reads at the source, block by block. */
export function sourceRuns({ runs, firstLayer, numLayers }: TransferRound): PoolRun[] {
  return runs.flatMap(({ sourceBlock, numBlocks }) =>
    Array.from({ length: numBlocks }, (_, i) => ({ block: sourceBlock + i, firstLayer, numLayers }))
  );
}

/** The blocks that a round writes at the destination, in the order of {@linkcode sourceRuns}. */
export function destinationBlocksOf({ runs }: TransferRound): number[] {
  return runs.flatMap(({ destinationBlock, numBlocks }) =>
    Array.from({ length: numBlocks }, (_, i) => destinationBlock + i)
  );
}
