/** Speeds: how many bytes a repeated copy moves. */

/**
 * Repeats a copy until `budgetMs` have passed, and at least once, after one that does not count.
 * @returns GB/s
 */
export async function rateOf(
  byteLength: number,
  budgetMs: number,
  copy: () => void | Promise<void>,
): Promise<number> {
  await copy();
  const startMs = performance.now();
  let bytes = 0, tookMs = 0;
  do {
    await copy();
    bytes += byteLength;
    tookMs = performance.now() - startMs;
  } while (tookMs < budgetMs);
  return gigabytesPerSecond(bytes, tookMs);
}

/** GB/s, to three digits. */
export function gigabytesPerSecond(bytes: number, ms: number): number {
  return Number((bytes / Math.max(ms, 1e-3) / 1e6).toPrecision(3));
}
