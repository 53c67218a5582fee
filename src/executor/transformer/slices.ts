import type { StepInput } from "../executor.ts";

/** Consecutive rows of one sequence of a step. */
export interface SequencePart {
  /** Index of the sequence in the step. */
  readonly index: number;
  /** First row in the step's `tokenIds`. */
  readonly firstRow: number;
  readonly numRows: number;
  /** Tokens of the sequence up to and including this part. */
  readonly contextLen: number;
  /** True when it ends with the sequence's newest token. */
  readonly isLast: boolean;
}

/** Parts that go through the model together: consecutive rows of the step. */
export type Slice = readonly SequencePart[];

/**
 * Cuts a step into slices of at most `maxRows` rows, so that activations have bounded size. A
 * sequence may be cut: its later rows attend to the earlier ones through the cache.
 */
export function sliceStep(input: StepInput, maxRows: number): Slice[] {
  const slices: SequencePart[][] = [];
  let current: SequencePart[] = [];
  let free = 0;
  for (let index = 0; index < input.handles.length; index++) {
    const end = input.queryStarts[index + 1];
    for (let row = input.queryStarts[index]; row < end;) {
      if (free === 0) {
        slices.push(current = []);
        free = maxRows;
      }
      const numRows = Math.min(free, end - row);
      const left = end - row - numRows;
      const contextLen = input.contextLens[index] - left;
      current.push({ index, firstRow: row, numRows, contextLen, isLast: left === 0 });
      row += numRows;
      free -= numRows;
    }
  }
  return slices;
}

/** What a slice may have at most. */
export interface SliceLimits {
  /** Rows of a slice. */
  readonly maxRows: number;
  readonly maxModelLen: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly vocabSize: number;
}

/** A slice as kernels read it: arrays that follow each other in one memory. */
export interface SliceArrays {
  readonly numSequences: number;
  readonly numTokens: number;
  /** [numTokens] */
  readonly tokenIds: Int32Array;
  /** [numTokens] */
  readonly positions: Int32Array;
  /** [numTokens]: block * blockSize + offset of each new token. */
  readonly slots: Int32Array;
  /** [numTokens]: index of the sequence of each token. */
  readonly sequences: Int32Array;
  /** [numTokens]: index in the step before of the sequence whose token it is; -1: `tokenIds` has it. */
  readonly sources: Int32Array;
  /** [numSequences + 1] */
  readonly queryStarts: Int32Array;
  /** [numSequences] including this step's tokens */
  readonly contextLens: Int32Array;
  /** [numSequences, maxBlocks] */
  readonly blockTables: Int32Array;
  readonly maxBlocks: number;
  /** Largest of contextLens. */
  readonly maxContextLen: number;
}

/** Room for more than a slice has: kernels that were recorded for it find arrays at the same places. */
export interface SliceRoom {
  /** Rows, each of a sequence of its own. Those that the slice has not are at position -1. */
  readonly rows: number;
  /** Longest context, at most `maxModelLen`. */
  readonly contextLen: number;
}

/** Words that {@linkcode writeSlice} needs at most. */
export function sliceWords(limits: SliceLimits): number {
  return limits.maxRows * (7 + maxTable(limits)) + 1;
}

/** Block table entries of the longest sequence. */
function maxTable({ maxModelLen, blockSize }: SliceLimits): number {
  return Math.ceil(maxModelLen / blockSize);
}

/**
 * Writes a slice of a step.
 * @param words at least {@linkcode sliceWords}
 * @param room for slices with one row a sequence; default: as much as the slice needs
 * @throws {RangeError} a token, block or length that the scheduler must never produce
 */
export function writeSlice(
  words: Int32Array,
  limits: SliceLimits,
  input: StepInput,
  slice: Slice,
  room?: SliceRoom,
): SliceArrays {
  const { blockSize } = limits;
  const numSequences = room?.rows ?? slice.length;
  const numTokens = room?.rows ?? slice.reduce((sum, part) => sum + part.numRows, 0);
  const maxContextLen = room?.contextLen ??
    slice.reduce((max, part) => Math.max(max, part.contextLen), 0);
  const maxBlocks = Math.ceil(maxContextLen / blockSize);
  if (maxBlocks > maxTable(limits) || numTokens > limits.maxRows) {
    throw new RangeError(`${numTokens} rows, context of ${maxContextLen} tokens`);
  }
  let used = 0;
  const take = (length: number) => words.subarray(used, used += length);
  const tokenIds = take(numTokens);
  const positions = take(numTokens);
  const slots = take(numTokens);
  const sequences = take(numTokens);
  const sources = take(numTokens);
  const queryStarts = take(numSequences + 1);
  const contextLens = take(numSequences);
  const blockTables = take(numSequences * maxBlocks);
  let row = 0;
  for (let i = 0; i < slice.length; i++) {
    const part = slice[i];
    const table = tableOf(input, part, limits);
    blockTables.set(table, i * maxBlocks);
    contextLens[i] = part.contextLen;
    queryStarts[i] = row;
    for (let j = 0; j < part.numRows; j++, row++) {
      const position = part.contextLen - part.numRows + j;
      const tokenId = input.tokenIds[part.firstRow + j];
      const isUnknown = input.isAhead === true && tokenId < 0;
      tokenIds[row] = isUnknown ? 0 : checkedToken(tokenId, limits);
      sources[row] = isUnknown ? -1 - tokenId : -1;
      positions[row] = position;
      slots[row] = table[Math.floor(position / blockSize)] * blockSize + position % blockSize;
      sequences[row] = i;
    }
  }
  tokenIds.fill(0, row);
  positions.fill(-1, row);
  slots.fill(-1, row);
  sequences.fill(0, row);
  sources.fill(-1, row);
  queryStarts.fill(row, slice.length);
  contextLens.fill(0, slice.length);
  return {
    numSequences,
    numTokens,
    tokenIds,
    positions,
    slots,
    sequences,
    sources,
    queryStarts,
    contextLens,
    blockTables,
    maxBlocks,
    maxContextLen,
  };
}

function checkedToken(tokenId: number, { vocabSize }: SliceLimits): number {
  if (tokenId >= 0 && tokenId < vocabSize) return tokenId;
  throw new RangeError(`token ${tokenId} of a vocabulary of ${vocabSize}`);
}

function tableOf(input: StepInput, part: SequencePart, limits: SliceLimits): Int32Array {
  const start = part.index * input.maxBlocks;
  const used = Math.ceil(part.contextLen / limits.blockSize);
  const table = input.blockTables.subarray(start, start + used);
  for (const block of table) {
    if (block < 0 || block >= limits.numBlocks) {
      throw new RangeError(`block ${block} of ${limits.numBlocks}`);
    }
  }
  return table;
}
