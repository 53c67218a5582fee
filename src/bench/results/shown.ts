import type { LatencyName } from "../summary.ts";

/** What of a run is shown, and what files are called by. */
export interface ShownOptions {
  readonly latencies: readonly LatencyName[];
  /** From 0 to 100. */
  readonly percentiles: readonly number[];
  readonly maxConcurrency: number | null;
  /** Requests per second; null if there is no constant rate. */
  readonly requestRate: number | null;
}

/** "99", "99.9": as vLLM names percentiles. */
export function percentileName(p: number): string {
  return String(p);
}
