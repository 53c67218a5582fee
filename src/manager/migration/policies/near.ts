/** Loads and rooms that differ by less are about equal: then the nearer destination is the better one. */
const TOLERANCE = 0.1;

/** Whether two loads, or two numbers of blocks, are about equal. */
export function isAbout(a: number, b: number): boolean {
  if (a === b) return true;
  return Number.isFinite(a) && Number.isFinite(b) &&
    Math.abs(a - b) <= TOLERANCE * Math.max(Math.abs(a), Math.abs(b));
}
