/** The closing line of `deno test`. */

export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
}

// deno-lint-ignore no-control-regex -- terminals' colours
const COLOURS = /\x1b\[[0-9;]*m/g;
const CLOSING =
  /^(?:ok|FAILED) \| (\d+) passed(?: \([^)]*\))? \| (\d+) failed(?: \([^)]*\))?(?: \| (\d+) ignored)?/gm;

export function withoutColours(output: string): string {
  return output.replace(COLOURS, "");
}

/**
 * Reads the last closing line, such as "ok | 10 passed (4 steps) | 0 failed | 1 ignored (2s)".
 * @returns null if there is none: the run did not get to its end
 */
export function readSummary(output: string): TestCounts | null {
  const last = [...withoutColours(output).matchAll(CLOSING)].at(-1);
  if (last === undefined) return null;
  return { passed: Number(last[1]), failed: Number(last[2]), ignored: Number(last[3] ?? 0) };
}
