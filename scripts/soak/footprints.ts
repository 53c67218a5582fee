/** Memory and open files of each process over time, and whether they stay level. */

/** One look at one process. */
export interface Footprint {
  readonly atMinutes: number;
  readonly residentBytes: number;
  readonly openFiles: number;
}

/** What became of a process's memory and files behind the first quarter of the run. */
export interface Trend {
  /** Median of the second quarter of the run. */
  readonly earlyBytes: number;
  /** Median of the last quarter. */
  readonly lateBytes: number;
  /** Least squares over all of it, but for the first quarter. */
  readonly bytesPerHour: number;
  /** Most of the second quarter, and of the last one. */
  readonly earlyFiles: number;
  readonly lateFiles: number;
  readonly isLevel: boolean;
}

/** Growth of the median from the second to the last quarter that counts as level. */
export const LEVEL_GROWTH = 0.05;
/** The same for open files: connections that happen to be open when they are counted. */
export const LEVEL_FILES = 10;

/** Reads a process's footprint; null if it has ended. Linux. */
export function footprintOf(pid: number, atMinutes: number): Footprint | null {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const kilobytes = /VmRSS:\s+(\d+)/.exec(status)?.[1];
    if (kilobytes === undefined) return null; // a zombie
    const openFiles = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
    return { atMinutes, residentBytes: 1024 * Number(kilobytes), openFiles };
  } catch {
    return null;
  }
}

/**
 * The trend of a process.
 * @returns null if it did not live from the first quarter of the run to the end
 */
export function trendOf(series: readonly Footprint[], minutes: number): Trend | null {
  const within = (from: number, to: number) =>
    series.filter(({ atMinutes }) => atMinutes >= from * minutes && atMinutes <= to * minutes);
  const [first, early, late] = [within(0, 1 / 4), within(1 / 4, 1 / 2), within(3 / 4, Infinity)];
  if (first.length === 0 || early.length === 0 || late.length === 0) return null;
  const earlyBytes = median(early.map(({ residentBytes }) => residentBytes));
  const lateBytes = median(late.map(({ residentBytes }) => residentBytes));
  const earlyFiles = Math.max(...early.map(({ openFiles }) => openFiles));
  const lateFiles = Math.max(...late.map(({ openFiles }) => openFiles));
  const isLevel = lateBytes <= earlyBytes * (1 + LEVEL_GROWTH) &&
    lateFiles <= earlyFiles + LEVEL_FILES;
  const bytesPerHour = 60 * slope(within(1 / 4, Infinity));
  return { earlyBytes, lateBytes, bytesPerHour, earlyFiles, lateFiles, isLevel };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Bytes per minute. */
function slope(series: readonly Footprint[]): number {
  const mean = (of: (one: Footprint) => number) =>
    series.reduce((sum, one) => sum + of(one), 0) / series.length;
  const x = mean(({ atMinutes }) => atMinutes), y = mean(({ residentBytes }) => residentBytes);
  const covariance = mean(({ atMinutes, residentBytes }) => (atMinutes - x) * (residentBytes - y));
  const variance = mean(({ atMinutes }) => (atMinutes - x) ** 2);
  return variance === 0 ? 0 : covariance / variance;
}
