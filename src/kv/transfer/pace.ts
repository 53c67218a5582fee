import type { Clock } from "../../core/clock.ts";

/** Bytes that a background transfer copies between two pauses. */
export const PIECE_BYTES = 512 << 10;
/** Share of the time in which it copies. */
const BUSY_SHARE = 1 / 32;
/** Share of its spare time until the deadline that it may spend on pauses. */
const PAUSE_SHARE = 1 / 2;

/** State of a background transfer after a piece was copied. */
export interface Progress {
  /** Time that the piece took. */
  readonly tookMs: number;
  /** Pieces of that size that remain. */
  readonly pieces: number;
  /** Time until the deadline. */
  readonly leftMs: number;
}

/**
 * How long a background transfer pauses before its next piece. Copying takes cores and memory bandwidth
 * from the steps of running requests. The request of a background transfer still decodes at the source
 * and does not wait for it, so it copies for a small share of the time, as far as the deadline allows.
 */
export function pauseMs({ tookMs, pieces, leftMs }: Progress): number {
  if (pieces === 0) return 0;
  const spareMs = Math.max(0, leftMs - pieces * tookMs);
  const affordableMs = spareMs * PAUSE_SHARE / pieces;
  return Math.min(tookMs * (1 / BUSY_SHARE - 1), affordableMs);
}

/** Waits; ends early when `signal` is aborted. Less than a millisecond is no pause. */
export function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  if (delayMs < 1 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      cancel();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const cancel = clock.after(delayMs, end);
    signal.addEventListener("abort", end);
  });
}
