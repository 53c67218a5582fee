/** Bytes that a background transfer copies at a time. */
export const PIECE_BYTES = 512 << 10;
/** Share of the time for which it may copy. */
const BUSY_SHARE = 1 / 32;
/** Share of the time that it does not need until its deadline, that it may pause for. */
const PAUSE_SHARE = 1 / 2;

/** Where a background transfer stands when a piece of it has been copied. */
export interface Progress {
  /** For which the piece was copied. */
  readonly tookMs: number;
  /** Pieces of that size that follow. */
  readonly pieces: number;
  /** Until the deadline. */
  readonly leftMs: number;
}

/**
 * How long a background transfer pauses before its next piece. Copying takes cores and memory bandwidth
 * that the steps of running requests need; as nobody waits for it, it copies for a small share of the
 * time, as long as its deadline allows for that.
 */
export function pauseMs({ tookMs, pieces, leftMs }: Progress): number {
  if (pieces === 0) return 0;
  const spareMs = Math.max(0, leftMs - pieces * tookMs);
  const affordableMs = spareMs * PAUSE_SHARE / pieces;
  return Math.min(tookMs * (1 / BUSY_SHARE - 1), affordableMs);
}
