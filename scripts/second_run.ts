/**
 * A test that fails once among thousands may have been disturbed by those beside it. So the files of a few
 * failed tests run a second time, alone. That hides nothing: a test that passes then is named as unsteady,
 * with its error, in the closing lines.
 */
import { readFailures, type TestFailure } from "./test_failures.ts";
import type { TestCounts } from "./test_summary.ts";

/** With more failures than these there is no second run: something is broken. */
export const MOST_FAILURES = 3;

/** A process of `deno test`. */
export interface TestRun {
  /** Null if it did not get to its closing line. */
  readonly counts: TestCounts | null;
  readonly code: number;
  readonly stdout: string;
}

export interface Verdict {
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
  /** Tests that failed beside others and passed alone: they count as passed. */
  readonly unsteady: readonly TestFailure[];
}

/** @param runAlone runs the tests of a file */
export async function judge(
  runs: readonly TestRun[],
  runAlone: (file: string) => Promise<TestRun>,
): Promise<Verdict> {
  let { passed, failed, ignored } = total(runs);
  const unsteady: TestFailure[] = [];
  const failures = retryable(runs);
  for (const file of new Set(failures.map(({ file }) => file))) {
    const first = failures.filter((failure) => failure.file === file);
    const second = await runAlone(file);
    // Why it failed is in its output, if it is understood.
    const numFailed = failedIn(second);
    const again = readFailures(second.stdout, numFailed) ?? first;
    unsteady.push(...first.filter(({ name }) => again.every((other) => other.name !== name)));
    const numFirst = first.reduce((sum, { count }) => sum + count, 0);
    failed += numFailed - numFirst;
    passed += Math.max(0, numFirst - numFailed - first.filter(isNoTest).length);
  }
  return { passed, failed, ignored, unsteady };
}

/** The lines that close a run; the last one is read by `.ci/run`. */
export function closingLines({ passed, failed, ignored, unsteady }: Verdict): string[] {
  const lines = unsteady.flatMap(({ name, place, message }) => [
    `failed beside other tests and passed alone: ${name} (${place})`,
    ...message.split("\n").map((line) => `    ${line}`),
  ]);
  const counts = [`${passed} passed`, `${failed} failed`, `${ignored} ignored`];
  if (unsteady.length > 0) counts.push(`${unsteady.length} unsteady`);
  return [...lines, "", [failed === 0 ? "ok" : "FAILED", ...counts].join(" | ")];
}

function total(runs: readonly TestRun[]) {
  const sum = (of: (run: TestRun) => number) => runs.reduce((total, run) => total + of(run), 0);
  return {
    passed: sum(({ counts }) => counts?.passed ?? 0),
    failed: sum(failedIn),
    ignored: sum(({ counts }) => counts?.ignored ?? 0),
  };
}

/** An error outside of the tests, such as a file that does not load, may be in the exit code alone. */
function failedIn({ counts, code }: TestRun): number {
  if (counts === null) return 1;
  return code !== 0 && counts.failed === 0 ? 1 : counts.failed;
}

/** The failures of all runs; none if they are too many, or the runs tell of others. */
function retryable(runs: readonly TestRun[]): readonly TestFailure[] {
  const failures = runs.map((run) =>
    run.counts === null ? null : readFailures(run.stdout, failedIn(run))
  );
  if (failures.includes(null)) return [];
  const all = failures.flatMap((some) => some!);
  return all.length <= MOST_FAILURES ? all : [];
}

function isNoTest({ name }: TestFailure): boolean {
  return name.endsWith("(uncaught error)");
}
