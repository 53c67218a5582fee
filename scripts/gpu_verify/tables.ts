import type { RowTables } from "../../ffi/cuda_kernels/decoder_kernels.ts";

/**
 * The tables of a slice: `count` sequences of `length` tokens, of each the last `rows`, whose blocks follow
 * each other.
 * @param words puts numbers into device memory
 */
export function tablesOf(
  words: (values: readonly number[]) => bigint,
  blockShift: number,
  count: number,
  rows: number,
  length: number,
): RowTables {
  const blockSize = 1 << blockShift, maxBlocks = Math.ceil(length / blockSize);
  const all = Array.from({ length: count * rows }, (_, row) => ({
    ...{ sequence: Math.floor(row / rows), position: length - rows + row % rows },
  }));
  const slot = ({ sequence, position }: { sequence: number; position: number }) =>
    (sequence * maxBlocks + (position >> blockShift)) * blockSize + position % blockSize;
  return {
    rows: all.length,
    positions: words(all.map(({ position }) => position)),
    slots: words(all.map(slot)),
    sequences: words(all.map(({ sequence }) => sequence)),
    blockTables: words(Array.from({ length: count * maxBlocks }, (_, i) => i)),
    maxBlocks,
    starts: words(Array.from({ length: count + 1 }, (_, i) => i * rows)),
    lengths: words(new Array(count).fill(length)),
    numSequences: count,
    mostRows: rows,
    maxContextLen: length,
  };
}
