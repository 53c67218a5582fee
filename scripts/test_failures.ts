/** The failures that `deno test` reports. */
import { withoutColours } from "./test_summary.ts";

export interface TestFailure {
  /** Of the test; for an error outside of the tests, what `deno test` calls it. */
  readonly name: string;
  /** The file that was run, such as "./test/a_test.ts". */
  readonly file: string;
  /** Where the test is registered, such as "./test/helper.ts:3:8"; the file where that is not told. */
  readonly place: string;
  /** The error, without its stack. */
  readonly message: string;
  /** How many failed tests of the closing line it stands for: more where an error cancels others. */
  readonly count: number;
}

const RUNNING = /^running \d+ tests? from (.+)$/;
const UNCAUGHT = /^Uncaught error from (.+) FAILED$/;
/** Of a test, not of a step, which is indented. */
const RESULT = /^(\S.*) \.\.\. (FAILED|cancelled)\b/;
const STARTED = /^(\S.*) \.\.\./;
/** The end of the line, if a child process wrote something behind its begin. */
const LATE_RESULT = /^ (FAILED|cancelled) \(/;
const OUTPUT = /^-+ (?:post-test )?output -+$/, OUTPUT_END = /^-+ (?:post-test )?output end -+$/;
const MAX_MESSAGE_LINES = 30;

/**
 * Reads the failures of a run out of what it wrote to stdout.
 * @returns null if they are not as many as its closing line says: then the output is not understood
 */
export function readFailures(stdout: string, numFailed: number): TestFailure[] | null {
  const text = withoutColours(stdout);
  const errorsAt = text.lastIndexOf("\n ERRORS \n");
  if (errorsAt < 0) return numFailed === 0 ? [] : null;
  const errors = text.slice(errorsAt).split("\n FAILURES \n")[0].split("\n");
  const failures = failedTests(text.slice(0, errorsAt).split("\n"))
    .map((failed) => ({ ...failed, ...errorOf(failed, errors) }));
  const count = failures.reduce((sum, { count }) => sum + count, 0);
  return count === numFailed ? failures : null;
}

type FailedTest = Pick<TestFailure, "name" | "file" | "count">;

function failedTests(lines: readonly string[]): FailedTest[] {
  const failed: FailedTest[] = [];
  let file = "", started = "", isOutput = false;
  for (const line of lines) {
    if (isOutput) isOutput = !OUTPUT_END.test(line);
    else if (OUTPUT.test(line)) isOutput = true;
    else {
      file = RUNNING.exec(line)?.[1] ?? file;
      const uncaught = UNCAUGHT.exec(line)?.[1];
      const result = RESULT.exec(line), late = LATE_RESULT.exec(line);
      if (uncaught !== undefined) {
        failed.push({ name: `${uncaught} (uncaught error)`, file: uncaught, count: 1 });
      } else if (result !== null || late !== null) {
        const name = result?.[1] ?? started, what = (result?.[2] ?? late?.[1])!;
        const last = failed.at(-1);
        // The error that ended the file cancelled it.
        if (what === "FAILED") failed.push({ name, file, count: 1 });
        else if (last?.file === file) failed.splice(-1, 1, { ...last, count: last.count + 1 });
      } else started = STARTED.exec(line)?.[1] ?? started;
    }
  }
  return failed;
}

/** What the section of errors says of a test, or of one of its steps. */
function errorOf({ name, file }: FailedTest, errors: readonly string[]) {
  const isHeader = (line: string) =>
    line === name || line.startsWith(`${name} => `) || line.startsWith(`${name} ... `);
  const at = errors.findIndex(isHeader);
  if (at < 0) return { place: file, message: "" };
  const rest = errors.slice(at + 1);
  const end = rest.findIndex((line) => /^ {4}at /.test(line) || / => \S+:\d+:\d+$/.test(line));
  const lines = rest.slice(0, end < 0 ? rest.length : end).slice(0, MAX_MESSAGE_LINES);
  const place = / => (\S+:\d+:\d+)$/.exec(errors[at])?.[1] ?? file;
  return { place, message: lines.join("\n").trim() };
}
